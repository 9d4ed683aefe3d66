"""Restoring a match: what is asked for, where it goes, at once or layer by layer in the background."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from . import _abi, _memory, dtypes
from ._handles import Handle
from ._library import library
from ._memory import Array, View
from ._progress import Progress
from .errors import Closed, Error, InvalidArgument

if TYPE_CHECKING:
    from .match import Match

Part: TypeAlias = "slice | range | None"
"""Consecutive layers or tokens: `slice(0, 4)`, `range(256, 512)`, None for all."""


class RestoredLayer(tuple[Array, Array]):
    """A pair (key, value), `[heads, tokens, dim]` each.

    Attributes:
        layer: its index in the model.
        first_token: the first of the tokens asked for that the layer holds: 0, but for sliding-window layers that have dropped some.
    """

    layer: int
    first_token: int

    def __new__(cls, key: Array, value: Array, index: int, first_token: int) -> RestoredLayer:
        layer = super().__new__(cls, (key, value))
        layer.layer = index
        layer.first_token = first_token
        return layer

    @property
    def key(self) -> Array:
        return self[0]

    @property
    def value(self) -> Array:
        return self[1]


@dataclass(frozen=True)
class Plan:
    """A restore, checked as far as Python can."""

    layers: range
    tokens: range
    threads: int
    arrays: Sequence[tuple[Array | None, Array | None]]
    views: list[tuple[View | None, View | None]]
    is_own_memory: bool
    """Whether the arrays were made here, so that what a layer does not hold must be cleared."""

    @property
    def is_empty(self) -> bool:
        return not self.layers or not self.tokens

    def options(self) -> _abi.RestoreOptions:
        return _abi.RestoreOptions.make(
            first_layer=self.layers.start,
            layer_count=len(self.layers),
            first_token=self.tokens.start,
            token_count=len(self.tokens),
            threads=self.threads,
        )

    def finished(self, at: int, first_token: int) -> RestoredLayer:
        """The layer at an index of those asked for, once it is complete."""
        key, value = self.arrays[at]
        if self.is_own_memory and first_token > 0:
            key[:, :first_token] = 0  # type: ignore[index]
            value[:, :first_token] = 0  # type: ignore[index]
        return RestoredLayer(key, value, self.layers[at], first_token)


def plan(
    match: Match,
    layers: Part,
    tokens: Part,
    into: Sequence[tuple[Array | None, Array | None]] | None,
    threads: int | None,
    dtype: Any,
    as_torch: bool,
) -> Plan:
    if threads is not None and threads < 1:
        raise InvalidArgument(f"{threads} threads decode nothing: pass 1 or more, or None for one per core")
    chosen = _range(layers, len(match.layers), "layers")
    part = _range(tokens, match.token_count, "tokens")
    is_own = into is None
    if into is None:
        into = _allocate(match, chosen, len(part), dtypes.code_of(dtype or match.dtype), as_torch)
    elif dtype is not None or as_torch:
        raise InvalidArgument("dtype and as_torch say what memory to make: with `into`, values get the type of its tensors")
    if len(into) != len(chosen):
        raise InvalidArgument(f"`into` has {len(into)} layers, but {len(chosen)} were asked for")
    views = []
    for index, pair in zip(chosen, into):
        try:
            key, value = pair
        except (TypeError, ValueError):
            raise InvalidArgument(f"`into` must hold a pair (key, value) for layer {index}") from None
        views.append((_destination(key, index, "key"), _destination(value, index, "value")))
    return Plan(chosen, part, threads or 0, list(into), views, is_own)


def run(match: Match, plan: Plan, progress: bool | None) -> list[RestoredLayer]:
    if plan.is_empty:
        return [plan.finished(at, 0) for at in range(len(plan.layers))]
    with Progress(len(plan.layers), "layer", "restoring", progress) as bar:
        if bar.is_shown:
            restored = []
            with RestoreJob(match, plan) as job:
                for layer in job:
                    restored.append(layer)
                    bar.advance(1)
            return restored
    first_tokens = (ctypes.c_uint64 * len(plan.layers))()
    options, native = plan.options(), _memory.native_layers(plan.views)
    with match.store._handle as store, match._handle as prefix:
        library().call("restore", store, prefix, ctypes.byref(options), native, len(plan.layers), first_tokens)
    return [plan.finished(at, first_tokens[at]) for at in range(len(plan.layers))]


class RestoreJob:
    """A restore in the background. Iterate over it for the layers in order, each when it is complete, or `wait` for one.

    Leaving its `with` block waits for the rest; leaving it by an exception cancels what is not complete. Until it has ended, it writes to
    the tensors that it was given. Use it from one thread at a time.
    """

    def __init__(self, match: Match, plan: Plan):
        self._match, self._plan = match, plan
        self._lock = threading.Lock()
        self._handle: Handle | None = None
        if plan.is_empty:
            return
        pointer = ctypes.c_void_p()
        options, native = plan.options(), _memory.native_layers(plan.views)
        with match.store._handle as store, match._handle as prefix:
            library().call("restore_begin", store, prefix, ctypes.byref(options), native, len(plan.layers), ctypes.byref(pointer))
        assert pointer.value is not None
        # the tensors live for as long as they are written to, whatever becomes of this object
        self._handle = Handle("restore", pointer.value, "restore_end", plan, native)

    @property
    def layers(self) -> range:
        """The indices of the layers asked for."""
        return self._plan.layers

    def wait(self, layer: int) -> RestoredLayer:
        """Waits until a layer (its index in the model) is complete.

        Raises:
            PageUnavailable: a page was evicted or fails its checksum. What was not complete by then never will be.
        """
        if layer not in self._plan.layers:
            raise InvalidArgument(f"layer {layer} was not asked for: {self._plan.layers}")
        first_token = ctypes.c_uint64()
        if self._handle is not None:
            with self._lock, self._handle as job:
                library().call("restore_wait", job, layer, ctypes.byref(first_token))
        return self._plan.finished(layer - self._plan.layers.start, first_token.value)

    def __iter__(self) -> Iterator[RestoredLayer]:
        for layer in self._plan.layers:
            yield self.wait(layer)

    def close(self) -> None:
        """Ends the restore: cancels what is not complete, and returns when nothing writes to the tensors any more.

        Raises:
            PageUnavailable: why it had failed before.
        """
        if self._handle is None or self._handle.is_closed:
            return
        if self._handle.is_of_parent:
            self._handle.close()
            return
        with self._lock:
            try:
                pointer = self._handle.take()
            except Closed:
                return
            library().call("restore_end", pointer)

    def __enter__(self) -> RestoreJob:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and not (self._handle is None or self._handle.is_closed):
            try:
                for _ in self:
                    pass
            finally:
                self._end_quietly()
        else:
            self._end_quietly()

    def _end_quietly(self) -> None:
        """Ends it where the reason of a failure is on its way already."""
        try:
            self.close()
        except Error:
            pass


def _range(part: Part, count: int, what: str) -> range:
    """Consecutive indices, within bounds."""
    if part is None:
        return range(count)
    if isinstance(part, slice):
        chosen = range(*part.indices(count))
    elif isinstance(part, range):
        chosen = part
    else:
        raise InvalidArgument(f"{what} must be a slice or a range, not {part!r}")
    if chosen.step != 1:
        raise InvalidArgument(f"{what} must be consecutive: {part}")
    if not chosen:
        return range(0)
    if chosen.start < 0 or chosen.stop > count:
        raise InvalidArgument(f"{what} {chosen.start}..<{chosen.stop} are not within the {count} that are stored")
    return chosen


def _destination(array: Array | None, layer: int, what: str) -> View | None:
    return None if array is None else _memory.destination(array, f"layer {layer}'s {what}")


def _allocate(match: Match, layers: range, tokens: int, dtype: int, as_torch: bool) -> list[tuple[Array, Array]]:
    def make(heads: int, dim: int) -> Array:
        shape = (heads, tokens, dim)
        if not as_torch:
            return np.empty(shape, dtypes.STORAGE[dtype])
        import torch

        # a tensor made in inference mode could not be used outside of it
        with torch.inference_mode(False):
            return torch.empty(shape, dtype=getattr(torch, dtypes.NAMES[dtype]))

    shapes = (match.layers[layer] for layer in layers)
    return [(make(shape.kv_heads, shape.key_dim), make(shape.kv_heads, shape.value_dim)) for shape in shapes]
