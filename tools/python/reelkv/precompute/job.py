"""Runs a clip through a model and stores its cache, chunk by chunk."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from ..errors import Error, NoSpace, NotFound, QuotaExceeded
from ..hf import Cache, cache_layers
from ..match import Match
from ..store import Store
from ..tokens import Tokens
from ..writer import DEFAULT_PROFILE, Writer
from .clip import Clip
from .decoder import DecoderCall, take_down
from .errors import Interrupted, PrecomputeError
from .frames import frame_table
from .inputs import prefix_inputs
from .loading import Engine
from .progress import Reporter
from .vision import encode_frames

_FLUSH_SECONDS = 5.0
"""How much work an interruption may lose, beside the chunk that is being computed."""


@dataclass(frozen=True)
class Options:
    """How to precompute.

    Attributes:
        profile: how full pages are stored: "exact", "vidkv-1.5-1.58", ...
        tenant: whose cache it is; None for the default tenant's.
        system: the chat's system message; None for what the model's template says then.
        chunk_tokens: tokens computed at a time, rounded up to full pages.
        frames_per_pass: frames, or groups of them, that the vision encoder takes at a time.
        from_lossy: whether an interrupted run's lossy pages may be what the rest of the video is computed from. If not, a run under a lossy
            profile computes from the start, and comes to what it would have come to without the interruption.
        replace: whether a video of the name with other content is replaced.
        pinned: whether the video is kept from eviction; None for as it was, and for a new one to be.
    """

    profile: str = DEFAULT_PROFILE
    tenant: str | None = None
    system: str | None = None
    chunk_tokens: int = 1024
    frames_per_pass: int = 16
    from_lossy: bool = True
    replace: bool = False
    pinned: bool | None = None


@dataclass
class Result:
    """What a precomputation did.

    Attributes:
        tokens, frames: of the whole video.
        restored_tokens: were stored already, and not computed.
        computed_tokens: were computed now.
        stored_tokens_before: of all tokens, how many lay in pages that did not have to be stored again.
        new_bytes: of the page images stored now.
        stored_bytes: of all page images of the video.
        key_error, value_error: NMSE of the whole video.
        context_key_error, context_value_error: NMSE of what the computed tokens were computed from; 0 where that was exact.
        is_unchanged: the video was there already, token for token.
        seconds: by stage.
    """

    video: str
    model: str
    profile: str
    tokens: int
    frames: int
    restored_tokens: int = 0
    computed_tokens: int = 0
    stored_tokens_before: int = 0
    new_bytes: int = 0
    stored_bytes: int = 0
    bits_per_element: float = 0.0
    key_error: float = 0.0
    value_error: float = 0.0
    context_key_error: float = 0.0
    context_value_error: float = 0.0
    is_unchanged: bool = False
    seconds: dict[str, float] = field(default_factory=dict)


def precompute(store: Store, engine: Engine, clip: Clip, name: str, options: Options = Options(), reporter: Reporter | None = None) -> Result:
    """Stores a clip's cache as "video/NAME": everything of a chat that begins with the clip, up to the question.

    What an earlier run has stored is not computed again, whether it was interrupted or had another name.

    Raises:
        PrecomputeError: the model does not take the clip, or the name holds another one.
        Interrupted: by KeyboardInterrupt, a full disk or a quota. What was stored stays, for the next run to go on from.
        reelkv.Error: the store refuses.
    """
    with Cache(
        store, engine.model, weights=engine.folder, profile=options.profile, tenant=options.tenant, processor=engine.processor
    ) as kv:
        return _Job(kv, engine, clip, name, options, reporter or Reporter(is_quiet=True)).run()


class _Job:
    def __init__(self, kv: Cache, engine: Engine, clip: Clip, name: str, options: Options, reporter: Reporter):
        self._kv, self._store, self._engine, self._clip, self._options = kv, kv.store, engine, clip, options
        self._sequence = f"video/{name.removeprefix('video/')}"
        self._reporter = reporter
        self._seconds: dict[str, float] = {}
        pages = self._store.page_tokens
        self._chunk_tokens = max(1, -(-options.chunk_tokens // pages)) * pages

    def run(self) -> Result:
        with self._timed("process"):
            inputs = dict(prefix_inputs(self._engine.processor, self._clip, self._options.system))
            tokens = self._kv.tokens(inputs)
        self._frames = self._frame_table(inputs, tokens)
        if self._is_stored(tokens):
            return self._result(tokens, is_unchanged=True)
        try:
            with self._resumable(tokens) as found:
                return self._compute(inputs, tokens, found)
        except KeyboardInterrupt:
            raise self._interrupted(tokens, "interrupted", by_person=True) from None
        except (NoSpace, QuotaExceeded) as error:
            raise self._interrupted(tokens, str(error)) from None
        except torch.OutOfMemoryError as error:
            reason = f"the device has no memory left ({str(error).splitlines()[0]}): take fewer frames, or smaller passes and chunks"
            raise self._interrupted(tokens, reason) from None

    # What is there

    def _is_stored(self, tokens: Tokens) -> bool:
        """Whether the name holds the video already, in the profile that is wanted."""
        try:
            video = self._store.video(self._sequence, self._options.tenant)
        except NotFound:
            return False
        if video.model == self._kv.spec.name:
            match = video.prefix(counted=False)
            stored = match.tokens()
            if match.token_count == video.token_count and stored == tokens:
                return video.profile == self._options.profile
        if self._options.replace:
            return False
        raise PrecomputeError(
            f"{self._sequence} holds another video, other sampling, another prompt or another model's cache: choose another name, or replace it"
        )

    @contextmanager
    def _resumable(self, tokens: Tokens) -> Iterator[Match | None]:
        """What can be restored instead of computed, kept from eviction; whole chunks of it."""
        match = self._match(tokens)
        count = match.token_count // self._chunk_tokens * self._chunk_tokens
        if count < match.token_count:  # with sliding windows, less can be restored of less
            match = self._match(tokens[:count])
        if count == 0 or match.token_count < count:
            yield None
            return
        with match.lease():
            yield match

    def _match(self, tokens: Tokens) -> Match:
        is_exact = self._options.profile == "exact" or not self._options.from_lossy
        return self._store.longest_prefix(
            tokens, self._kv.spec, self._options.tenant, "exact" if is_exact else "any", counted=False
        )

    # Computing

    def _compute(self, inputs: dict[str, Any], tokens: Tokens, found: Match | None) -> Result:
        with torch.inference_mode():
            call = self._prepare(inputs, tokens, found.token_count if found is not None else 0)
            if found is not None and not call.can_be_cut:
                found = None
                call = self._prepare(inputs, tokens, 0)
            result = self._write(call, tokens, found)
            if result is None:
                # Pages that match, but in another profile: encoding them anew from what was restored would add loss to loss.
                self._reporter.say("what is stored of the video has another profile: computing it anew")
                result = self._write(self._prepare(inputs, tokens, 0), tokens, None)
        assert result is not None
        return result

    def _prepare(self, inputs: dict[str, Any], tokens: Tokens, start: int) -> DecoderCall:
        """Everything before the language model: frames to features, features among embeddings."""
        model = self._engine.model
        placed = {name: _placed(name, value, model) for name, value in inputs.items()}
        first_feature = sum(min(max(start - span.first_token, 0), span.count) for span in tokens.media)
        with self._timed("vision"), self._reporter.stage("vision", None, "frames") as stage:
            placed = encode_frames(model, placed, first_feature, self._options.frames_per_pass, stage.reach)
            return take_down(model, placed)

    def _write(self, call: DecoderCall, tokens: Tokens, found: Match | None) -> Result | None:
        """Computes and stores what is not restored; None, and nothing stored, if what was restored cannot be shared."""
        start = found.token_count if found is not None else 0
        with self._timed("restore"):
            past = self._kv.restore(found if found is not None else self._match(tokens[:0]))
        writer = self._store.writer(
            self._sequence, self._kv.spec, self._options.profile, self._options.tenant, replace=self._options.replace
        )
        with writer:
            for begin in range(0, start, self._chunk_tokens):
                end = min(begin + self._chunk_tokens, start)
                writer.append(tokens[begin:end], cache_layers(past, begin, end))
            if found is not None and not found.is_exact and writer.reused_token_count < start:
                writer.cancel()
                return None
            with self._timed("prefill"), _flushed(writer):
                self._prefill(call, past, tokens, writer)
            with self._timed("finish"):
                writer.finish(
                    engine_state=self._kv.engine_state(past),
                    frames=self._frames,
                    provenance=self._provenance(tokens, found),
                    pinned=self._options.pinned,
                )
            return self._result(tokens, found, writer)

    def _prefill(self, call: DecoderCall, past: Any, tokens: Tokens, writer: Writer) -> None:
        start = past.get_seq_length()
        if start > 0:
            self._reporter.say(f"{start:,} of {len(tokens):,} tokens are stored already: going on from there")
        flushed = time.monotonic()
        with self._reporter.stage("prefill", len(tokens), "tokens", done=start) as stage:
            for chunk in call.chunks(past, self._chunk_tokens):
                writer.append(tokens[chunk.start : chunk.stop], cache_layers(past, chunk.start, chunk.stop))
                if time.monotonic() - flushed >= _FLUSH_SECONDS:
                    writer.flush()
                    flushed = time.monotonic()
                stage.reach(chunk.stop, note=f"{writer.stored_bytes / 1e6:.1f} MB stored")

    # What is told

    def _frame_table(self, inputs: dict[str, Any], tokens: Tokens) -> list[tuple[int, int, float]]:
        is_video = [False] * len(tokens)
        for span in tokens.media:
            is_video[span.first_token : span.end] = [True] * span.count
        grid = inputs.get("video_grid_thw")
        return frame_table(is_video, None if grid is None else int(grid[:, 0].sum()), self._clip.seconds.tolist())

    def _provenance(self, tokens: Tokens, found: Match | None) -> dict[str, str]:
        processor = getattr(self._engine.processor, "video_processor", self._engine.processor)
        entries = {
            "source": self._clip.name,
            "source_sha256": self._clip.sha256,
            "sampling": json.dumps(self._clip.sampling.described()),
            "processor": json.dumps(processor.to_dict(), default=str, sort_keys=True),
            "model_folder": self._engine.folder.resolve().name,
            "media_digest": " ".join(dict.fromkeys(span.digest.hex() for span in tokens.media)),
        }
        if found is not None:
            entries["resumed"] = json.dumps(
                {"tokens": found.token_count, "key_error": _short(found.key_error), "value_error": _short(found.value_error)}
            )
        return entries

    def _result(self, tokens: Tokens, found: Match | None = None, writer: Writer | None = None, is_unchanged: bool = False) -> Result:
        match = self._store.sequence_prefix(self._sequence, self._options.tenant, self._kv.spec.name, counted=False)
        elements = sum(layer.kv_heads * (layer.key_dim + layer.value_dim) for layer in match.layers)
        restored = len(tokens) if is_unchanged else found.token_count if found is not None else 0
        return Result(
            video=self._sequence,
            model=self._kv.spec.name,
            profile=self._options.profile,
            tokens=len(tokens),
            frames=len(self._clip),
            restored_tokens=restored,
            computed_tokens=len(tokens) - restored,
            stored_tokens_before=writer.reused_token_count if writer is not None else len(tokens),
            new_bytes=writer.stored_bytes if writer is not None else 0,
            stored_bytes=match.stored_bytes,
            bits_per_element=8 * match.stored_bytes / max(1, len(tokens) * elements),
            key_error=match.key_error,
            value_error=match.value_error,
            context_key_error=found.key_error if found is not None else 0.0,
            context_value_error=found.value_error if found is not None else 0.0,
            is_unchanged=is_unchanged,
            seconds={stage: round(seconds, 3) for stage, seconds in self._seconds.items()},
        )

    def _interrupted(self, tokens: Tokens, reason: str, by_person: bool = False) -> Interrupted:
        try:
            kept = self._match(tokens).token_count
        except Error:
            return Interrupted(reason, by_person)
        again = kept // self._chunk_tokens * self._chunk_tokens
        return Interrupted(
            f"{reason.rstrip('.')}; {kept:,} of {len(tokens):,} tokens are stored, and the same command goes on from token {again:,}",
            by_person,
        )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + time.monotonic() - began


@contextmanager
def _flushed(writer: Writer) -> Iterator[None]:
    """Makes durable what was appended, if the block is left by an exception."""
    try:
        yield
    except BaseException:
        with suppress(Error):  # what went wrong first is what matters
            writer.flush()
        raise


def _placed(name: str, value: Any, model: Any) -> Any:
    """An input where the model computes, and pixels in its own type, which not every model sees to."""
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(model.device, model.dtype if name.startswith("pixel_values") else None)


def _short(error: float) -> float:
    return float(f"{error:.4g}")
