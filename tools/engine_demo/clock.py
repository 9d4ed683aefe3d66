"""When the first token comes, and what it waited for."""

import time
from dataclasses import dataclass

import torch

import reelkv.hf
from reelkv.precompute.decoder import take_down


class ClockedCache(reelkv.hf.Cache):
    """Notes how long finding and restoring a prefix took."""

    restoring_seconds = 0.0

    def match(self, *arguments, **named):
        return self._clocked(super().match, *arguments, **named)

    def restore(self, *arguments, **named):
        return self._clocked(super().restore, *arguments, **named)

    def _clocked(self, function, *arguments, **named):
        began = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            self.restoring_seconds += time.perf_counter() - began


class FirstToken:
    """A streamer that notes when the first new token came."""

    def __init__(self):
        self.began = time.perf_counter()
        self.seconds = None
        self._has_prompt = False

    def put(self, _):
        if self._has_prompt and self.seconds is None:
            self.seconds = time.perf_counter() - self.began
        self._has_prompt = True  # what comes first is the prompt

    def end(self):
        pass


@dataclass
class WithStore:
    """Seconds to the first token of a prompt whose beginning is stored, and how many of them finding and restoring it took."""

    first_token: float
    restoring: float

    @classmethod
    def measured(cls, cache: ClockedCache, inputs: dict) -> "WithStore":
        cache.restoring_seconds = 0.0
        clock = FirstToken()
        cache.generate(**inputs, max_new_tokens=1, do_sample=False, streamer=clock)
        return cls(clock.seconds, cache.restoring_seconds)


@dataclass
class WithoutStore:
    """Seconds to the first token of a prompt of which nothing is stored: those of the vision encoder, and those of the language model."""

    vision: float
    prefill: float

    @classmethod
    @torch.inference_mode()
    def measured(cls, model, inputs: dict) -> "WithoutStore":
        began = time.perf_counter()
        call = take_down(model, inputs)
        seen = time.perf_counter()
        output = call.run(empty_cache(model), range(call.token_count))
        model.lm_head(output.last_hidden_state[:, -1:]).argmax()
        return cls(seen - began, time.perf_counter() - seen)


def empty_cache(model):
    from transformers import DynamicCache

    return DynamicCache(config=model.config.get_text_config())
