"""One turn of a chat, in a process of its own: everything it knows of the turns before comes from the store and from the client.

Prints what was answered and measured as JSON.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import median

os.environ["HF_HUB_OFFLINE"] = "1"

import torch

import reelkv
from engine_demo.clock import ClockedCache, WithoutStore, WithStore
from reelkv.precompute import Sampling, load, open_clip, prefix_inputs
from reelkv.precompute.loading import hide_progress

ANSWER_TOKENS_MAX = 24


def main() -> None:
    options = arguments()
    hide_progress()
    engine = load(options.model, device="cpu")
    clip = open_clip(options.clip, Sampling(frames=options.frames))
    history = json.loads(options.history.read_text()) if options.history.exists() else []
    new = question_ids(engine.processor.tokenizer, options.question, is_first=not history)
    inputs = prompt(engine.processor, clip, history + new)
    with reelkv.Store(options.store) as store:
        cache = ClockedCache(
            store, engine.model, weights=engine.folder, processor=engine.processor, profile=options.profile, tenant=options.tenant
        )
        rounds = [
            (WithStore.measured(cache, inputs), WithoutStore.measured(engine.model, inputs)) for _ in range(options.rounds)
        ]
        before = pages_bytes(store)
        output = cache.generate(
            **inputs, session=options.session, max_new_tokens=ANSWER_TOKENS_MAX, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
        found, stored = cache.last_match, pages_bytes(store) - before
    prompt_tokens = inputs["input_ids"].shape[1]
    answer = output.sequences[0, prompt_tokens:].tolist()
    options.history.write_text(json.dumps(history + new + answer))
    with_store, without = (average([pair[side] for pair in rounds]) for side in (0, 1))
    result = {
        "session": options.session,
        "process": os.getpid(),
        "question": options.question,
        "answer": engine.processor.tokenizer.decode(answer, skip_special_tokens=True).strip(),
        "reused_tokens": found.token_count,
        "computed_tokens": prompt_tokens - found.token_count,
        "stored_bytes": stored,
        "with_store": with_store,
        "without": without,
        "kl": divergence(engine.model, inputs, output),
    }
    json.dump(result, sys.stdout)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    for name in ("model", "clip", "store", "history"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("session", "question", "profile"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--tenant")
    parser.add_argument("--frames", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    return parser.parse_args()


def question_ids(tokenizer, question: str, is_first: bool) -> list[int]:
    """A question and what asks the model for its answer; the video has opened the first one's turn."""
    opening = "\n" if is_first else "<|im_end|>\n<|im_start|>user\n"
    return tokenizer(f"{opening}{question}<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False).input_ids


def prompt(processor, clip, ids: list[int]) -> dict:
    """The video and the conversation behind it. Answers come as the ids that they were, not as text that might be cut otherwise."""
    inputs = dict(prefix_inputs(processor, clip))
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([ids])], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return inputs


def pages_bytes(store: reelkv.Store) -> int:
    return store.statistics()["stored_bytes"]


def average(measured: list) -> dict[str, float]:
    return {name: median(asdict(one)[name] for one in measured) for name in asdict(measured[0])}


@torch.inference_mode()
def divergence(model, inputs: dict, output) -> float:
    """KL divergence of what the model said with the stored cache from what it says without one, at the same tokens: mean over the
    answer, in nats a token."""
    whole = {**inputs, "input_ids": output.sequences, "attention_mask": torch.ones_like(output.sequences)}
    first = inputs["input_ids"].shape[1] - 1
    exact = model(**whole).logits[0, first : first + len(output.logits)].float().log_softmax(-1)
    restored = torch.cat(output.logits).float().log_softmax(-1)
    return float(torch.nn.functional.kl_div(restored, exact, log_target=True, reduction="batchmean"))


if __name__ == "__main__":
    main()
