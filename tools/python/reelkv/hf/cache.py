"""A model of transformers and a store, together."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from transformers import DynamicCache

from ..errors import Error, InvalidArgument, ModelMismatch, NotFound, PageUnavailable, ReadOnly
from ..match import Accepting, Lease, Match
from ..model import Model
from ..store import Store
from ..tokens import Tokens
from ..writer import DEFAULT_PROFILE, Frame
from . import dynamic
from .fingerprint import state_fingerprint
from .media import processor_settings
from .prompt import PROMPT_INPUTS, Prompt, usable_count
from .saving import Origin, Saving
from .state import PositionKeeper

_ATTEMPTS = 3


class NotSaved(UserWarning):
    """A turn was generated, but could not be stored. The message says why."""


class Cache:
    """Keeps a model's caches in a store. `close` it, or use it in `with`, when the model goes on without it.

    Attributes:
        store, model: what it was made of.
        spec: the model as the store knows it.
        profile: how full pages are stored.
        last_match: what the last `generate` found.
    """

    def __init__(
        self,
        store: Store,
        model: Any,
        weights: Any = None,
        profile: str = DEFAULT_PROFILE,
        tenant: str | None = None,
        name: str | None = None,
        processor: Any = None,
        variant: str = "",
    ):
        """Registers the model.

        Args:
            store: where the caches are.
            model: a transformers model with a `DynamicCache`.
            weights: what identifies its weights: a folder, files, or 64 hexadecimal digits, as for `Model.from_hf_config`; None for its
                `state_dict`, which takes a second per gigabyte and sees whatever was merged or changed in memory.
            profile: how full pages are stored: "exact", "vidkv-1.5-1.58", ...
            tenant: whose caches these are; None for the default tenant's.
            name: what the store calls the model; None for its type and fingerprint.
            processor: the processor or image processor; its settings become part of the identity of images and videos, beside what it makes of
                them. None for the pixel values, grids and sampling alone.
            variant: what else changes the cache, if `weights` does not tell. Any text.
        """
        self.store, self.model, self.profile, self.tenant = store, model, profile, tenant
        if weights is None:
            weights = state_fingerprint(model)
        self.spec = Model.from_hf_config(model.config, weights=weights, name=name, dtype=model.dtype, variant=variant)
        self.last_match: Match | None = None
        self._processor_settings = processor_settings(processor)
        self._register()
        self._keeper = PositionKeeper(model)

    def _register(self) -> None:
        try:
            for warning in self.store.add_model(self.spec):
                warnings.warn(warning, stacklevel=3)
        except ReadOnly:
            if not any((model.name, model.fingerprint) == (self.spec.name, self.spec.fingerprint) for model in self.store.models()):
                raise NotFound(f"the store is read-only and has no model '{self.spec.name}' of these weights") from None

    def close(self) -> None:
        """Leaves the model alone. The store stays open."""
        self._keeper.close()

    def __enter__(self) -> Cache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Step by step

    def tokens(self, inputs: Mapping[str, Any] | Any) -> Tokens:
        """A prompt as a store identifies it.

        Args:
            inputs: what a processor returns, for the whole conversation: `input_ids` `[1, tokens]`, and with it `pixel_values`,
                `image_grid_thw`, `pixel_values_videos`, ... Bare ids are taken, too.

        Returns:
            Tokens with a span for every image and video, which is identified by its pixel values, grid, sampling and settings, and with
            position ids where the model has several streams of them.

        Raises:
            InvalidArgument: placeholders without pixels, padding, several sequences, inputs that cannot be identified.
        """
        return inputs if isinstance(inputs, Tokens) else self._prompt(inputs).tokens

    def match(self, inputs: Mapping[str, Any] | Any, accept: Accepting = "any") -> Match:
        """The longest stored prefix of a prompt after which the model can go on: it ends before the last token, which the model must see to
        say what comes next, and not inside an image or video.

        Args:
            inputs: as for `tokens`.
            accept: how lossy it may be: "any", "exact" or an `Acceptance`.
        """
        tokens = self.tokens(inputs)
        count = max(0, len(tokens) - 1)
        is_counted = True
        while True:
            match = self.store.longest_prefix(tokens[:count], self.spec, self.tenant, accept, counted=is_counted)
            count = usable_count(tokens, match.token_count)
            if count == match.token_count:
                return match
            is_counted = False

    def restore(self, match: Match, upto: int | None = None, layerwise: bool = False, threads: int | None = None) -> Any:
        """A match as a `DynamicCache` on the model's devices. What the model keeps beside its cache (Qwen's `rope_deltas`) is put back into
        it, so that `model(new_ids, past_key_values=past)` and `model.generate(**inputs, past_key_values=past)` go on as if the model had
        computed all of it just now.

        Args:
            upto: how many tokens of the match; None for all. With sliding windows, match only the tokens to restore instead.
            layerwise: whether to return at once. Each layer then waits for its own tensors when the model comes to it, while the next ones
                are decoded. A page that turns out to be gone raises there.
            threads: how many threads decode; None for one per core.

        Raises:
            PageUnavailable: a page was evicted or is damaged: match again.
            InvalidArgument: the engine state is another engine's.
        """
        if match.model != self.spec.name:
            raise ModelMismatch(f"the match is of model '{match.model}', this is '{self.spec.name}'")
        count = match.token_count if upto is None else upto
        if not 0 <= count <= match.token_count:
            raise InvalidArgument(f"the match has {match.token_count} tokens, not {count}")
        past = dynamic.restore(match, count, self.model.config, self._devices(), threads, layerwise)
        if self._keeper.has_streams and count > 0:
            positions = match.tokens().positions
            state = match.engine_state if count == match.token_count else None
            self._keeper.restore(state, positions, count, self.model.device)
            self._keeper.seed(past, positions, count)
        Origin.note(past, Origin(match, count, match.is_exact))
        return past

    def save(
        self,
        sequence: str,
        inputs: Mapping[str, Any] | Any,
        past: Any,
        start: Match | None = None,
        frames: Iterable[Frame | tuple[int, int, float]] | None = None,
        provenance: Mapping[str, str] | None = None,
        pinned: bool | None = None,
        replace: bool = False,
    ) -> int:
        """Stores a cache under a name. Only what is new is written: a session goes on after the tokens that it has; a new one shares what was
        restored.

        A session that has other tokens than these from some point on is cut back to there first; one that has all of these, and more, stays
        as it is.

        Args:
            sequence: "session/NAME" or "video/NAME".
            inputs: what the cache was computed from, as for `tokens`; it may have more tokens than the cache, such as the last one that was
                generated: `{**inputs, "input_ids": output.sequences}`. Positions are those that the model was seen to use.
            past: the `DynamicCache`.
            start: what a new session starts with; None for what the cache was restored from.
            frames, provenance, pinned: see `Writer.finish`.
            replace: whether a video of the name with other content is replaced.

        Returns:
            How many tokens were appended.

        Raises:
            InvalidArgument: the cache does not belong to the inputs, or cannot be stored.
            Conflict: another process changed the session meanwhile.
            QuotaExceeded, NoSpace: there is no room. What was stored before is still there.
        """
        count = dynamic.token_count(past)
        tokens = self._computed_tokens(inputs, past, count)
        saving = Saving(self.store, self.spec, self.profile, self.tenant, tokens, past)
        state = self._keeper.encoded(past)
        finish = {"engine_state": state, "frames": frames, "provenance": provenance, "pinned": pinned}
        if sequence.startswith("session/"):
            return saving.into_session(sequence, start, finish)
        return saving.into_video(sequence, start, finish, replace)

    def engine_state(self, past: Any) -> bytes | None:
        """What the model keeps beside this cache, as `Writer.finish` takes it; None where that is nothing."""
        return self._keeper.encoded(past)

    # In one go

    def generate(
        self, session: str | None = None, accept: Accepting = "any", layerwise: bool = False, **arguments: Any
    ) -> Any:
        """`model.generate`, but for what is stored already.

        Args:
            session: under which name to store the turn, as "session/NAME"; None stores nothing. If that fails, a NotSaved warning says why:
                what was generated is returned in any case.
            accept: how lossy what is restored may be.
            layerwise: whether the model starts while later layers are still being decoded.
            **arguments: what the processor returned for the whole conversation, and what else `generate` takes.

        Returns:
            What `generate` returns: `[1, tokens]`, or a dict-like object with `return_dict_in_generate=True`.
        """
        if arguments.get("past_key_values") is not None:
            raise InvalidArgument("generate finds and restores the cache itself: leave past_key_values out, or call the model's own generate")
        prompt = self._prompt({name: value for name, value in arguments.items() if name in PROMPT_INPUTS})
        options = {name: value for name, value in arguments.items() if name not in PROMPT_INPUTS and name != "past_key_values"}
        self._check_single(options)
        wants_dict = options.pop("return_dict_in_generate", False)
        match, lease, past = self._restored(prompt, accept, layerwise)
        try:
            self.last_match = match
            self._keeper.set_deltas(prompt.deltas)
            output = self.model.generate(
                **prompt.after(dynamic.token_count(past)), past_key_values=past, return_dict_in_generate=True, **options
            )
            if session is not None:
                self._save_turn(session, prompt, output.sequences, past)
        finally:
            if lease is not None:
                lease.close()
        return output if wants_dict else output.sequences

    def _restored(self, prompt: Prompt, accept: Accepting, layerwise: bool) -> tuple[Match, Lease | None, Any]:
        """What is stored of a prompt, kept from eviction, and its cache; an empty one where pages go faster than they can be read."""
        for _ in range(_ATTEMPTS):
            match = self.match(prompt.tokens, accept)
            lease = None
            try:
                lease = self._lease(match)
                return match, lease, self.restore(match, layerwise=layerwise)
            except PageUnavailable:
                if lease is not None:
                    lease.close()
        match = self.store.longest_prefix([], self.spec, self.tenant, counted=False)
        return match, None, self.restore(match)

    def _lease(self, match: Match) -> Lease | None:
        if match.token_count == 0:
            return None
        try:
            return match.lease()
        except ReadOnly:
            return None

    def _save_turn(self, session: str, prompt: Prompt, sequences: Any, past: Any) -> None:
        try:
            self.save("session/" + session.removeprefix("session/"), {**prompt.inputs, "input_ids": sequences, "attention_mask": None}, past)
        except Error as error:
            warnings.warn(f"the turn of session '{session}' was not stored: {error}", NotSaved, stacklevel=3)

    # Inputs

    def _prompt(self, inputs: Mapping[str, Any] | Any) -> Prompt:
        if not isinstance(inputs, Mapping) and not hasattr(inputs, "keys"):
            inputs = {"input_ids": inputs}
        return Prompt({name: inputs[name] for name in inputs.keys()}, self.model.config, self._keeper, self._processor_settings)

    def _computed_tokens(self, inputs: Mapping[str, Any] | Any, past: Any, count: int) -> Tokens:
        """The tokens of a cache, at the positions at which they were computed."""
        tokens = self.tokens(inputs)
        if len(tokens) < count:
            raise InvalidArgument(f"the cache has {count} tokens, the inputs only {len(tokens)}: pass those that were generated, too")
        tokens = tokens[:count]
        if not self._keeper.has_streams or isinstance(inputs, Tokens):
            return tokens
        positions = self._keeper.recorded(past, count)
        if positions is None:
            raise InvalidArgument("the cache was computed before reelkv.hf.Cache was made for its model, so that its tokens' positions are not known")
        return Tokens(tokens.ids, tokens.media, positions)

    def _devices(self) -> list[Any]:
        """Where each layer computes."""
        decoder = self.model.get_decoder()
        layers = getattr(decoder, "layers", None)
        if layers is None:
            return [self.model.device] * len(DynamicCache(config=self.model.config).layers)
        return [next((parameter.device for parameter in layer.parameters()), self.model.device) for layer in layers]

    def _check_single(self, options: Mapping[str, Any]) -> None:
        config = options.get("generation_config") or self.model.generation_config
        for name in ("num_beams", "num_return_sequences"):
            value = options.get(name, getattr(config, name, None))
            if value is not None and value != 1:
                raise InvalidArgument(f"{name} must be 1: a stored cache is one sequence's")
