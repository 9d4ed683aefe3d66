"""Writing a sequence's cache, as a prefill produces it."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from . import _abi, _memory
from ._handles import Handle
from ._library import encoded, library, unsigned
from ._memory import Array
from .errors import Error, InvalidArgument
from .tokens import Tokens, TokensLike

if TYPE_CHECKING:
    from .match import Match
    from .store import Store

DEFAULT_PROFILE = "vidkv-1.5-1.58"


@dataclass(frozen=True)
class Frame:
    """One frame of a video, and the tokens that it became."""

    first_token: int
    token_count: int
    seconds: float
    """When it is shown."""


class Writer:
    """Takes a sequence's cache in pieces of any size, and stores it page by page. `Store.writer` makes one.

    Full pages are durable soon after they fill; memory stays bounded whatever the length. The sequence appears under its name, whole,
    with `finish`. Use it in `with`: leaving the block finishes it, unless it was finished or cancelled in it; leaving it by an exception
    keeps its full pages for a later writer of the same name, and publishes nothing.

    Several threads may use it, one after the other.

    Attributes:
        sequence: "video/NAME" or "session/NAME".
        model: the model's name.
    """

    def __init__(self, pointer: int, sequence: str, model: str, start_count: int):
        self._handle = Handle("writer", pointer, "writer_close")
        self._lock = threading.Lock()
        self._is_finished = False
        self.sequence = sequence
        self.model = model
        self._start_count = start_count

    def append(self, tokens: TokensLike, layers: Sequence[tuple[Array, Array]]) -> None:
        """Appends tokens with their keys and values. The memory is read before this returns, and nothing is kept of it.

        Args:
            tokens: the new tokens alone: media spans count from the first of them. Positions that are None mean each token's index in the
                whole sequence.
            layers: for every layer of the model a pair (key, value), `[heads, tokens, dim]` or `[1, heads, tokens, dim]`: numpy arrays,
                torch CPU tensors or mlx arrays with any strides, of the model's own element type (bfloat16 in numpy: its bits in
                uint16). Layers with a sliding window may hold fewer tokens: the last ones.

        Raises:
            ModelMismatch, InvalidArgument: what was given does not fit. Nothing was taken, and the writer can go on.
            QuotaExceeded, NoSpace, Conflict, StorageFailure: the writer is done. What it has stored stays, and a new writer of the same
                name goes on from there.
        """
        tokens = Tokens.of(tokens)
        views = []
        for index, pair in enumerate(layers):
            try:
                key, value = pair
            except (TypeError, ValueError):
                raise InvalidArgument(f"layer {index} must be a pair (key, value)") from None
            views.append(
                (_memory.source(key, f"layer {index}'s key"), _memory.source(value, f"layer {index}'s value"))
            )
        if len(tokens) == 0:
            return
        native, keeps = tokens._native()
        native_layers = _memory.native_layers(views)
        with self._lock, self._handle as writer:
            library().call("writer_append", writer, ctypes.byref(native), native_layers, len(views))
        del keeps

    def flush(self) -> None:
        """Makes what was appended durable as far as it fills pages."""
        with self._lock, self._handle as writer:
            library().call("writer_flush", writer)

    @property
    def token_count(self) -> int:
        """Tokens of the sequence so far: those it started from, and those appended."""
        return int(self._describe().token_count)

    @property
    def start_count(self) -> int:
        """Tokens that it started from."""
        return self._start_count

    @property
    def reused_token_count(self) -> int:
        """Of the appended tokens, how many lay in pages that were stored already."""
        return int(self._describe().reused_token_count)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the page images that were stored for the appended tokens."""
        return int(self._describe().stored_bytes)

    @property
    def is_finished(self) -> bool:
        return self._is_finished

    def finish(
        self,
        engine_state: bytes | None = None,
        frames: Iterable[Frame | tuple[int, int, float]] | None = None,
        provenance: Mapping[str, str] | None = None,
        pinned: bool | None = None,
    ) -> None:
        """Stores the rest, and publishes the sequence under its name, whole.

        Args:
            engine_state: opaque bytes that the engine needs beside K and V to go on after the last token.
            frames: a video's frame table: `Frame`s, or triples (first token, tokens, seconds).
            provenance: where the sequence came from, as text by text. Entries that it had stay, unless named again.
            pinned: whether its pages are kept from being evicted; None pins a new video and leaves the rest as it is.

        Raises:
            AlreadyExists: a video of the name holds other tokens, and the writer does not replace it.
            Conflict: another writer changed the session meanwhile.
        """
        options = _abi.FinishOptions.make(
            pin=_abi.PIN_DEFAULT if pinned is None else _abi.PIN_YES if pinned else _abi.PIN_NO
        )
        keeps = [_set_state(options, engine_state), _set_frames(options, frames), _set_provenance(options, provenance)]
        with self._lock, self._handle as writer:
            library().call("writer_finish", writer, ctypes.byref(options))
            self._is_finished = True
        del keeps

    def close(self) -> None:
        """Lets go of it. One that has not finished leaves its full pages for a later writer of the same name."""
        with self._lock:
            self._handle.close()

    def cancel(self) -> None:
        """Lets go of it and deletes what it has stored, unless others share it."""
        with self._lock:
            library().release("writer_cancel", self._handle.take())

    def _describe(self) -> _abi.WriterInfo:
        info = _abi.WriterInfo.make()
        with self._lock, self._handle as writer:
            library().call("writer_describe", writer, ctypes.byref(info))
        return info

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and not self._is_finished and not self._handle.is_closed:
                self.finish()
        finally:
            self.close()


def open_writer(
    store: Store,
    sequence: str,
    model: str,
    profile: str,
    tenant: str | None,
    start: Match | None,
    protected_tokens: Iterable[int] | None,
    after: int | None,
    replace: bool,
) -> Writer:
    options = _abi.WriterOptions.make(
        tenant=None if tenant is None else encoded(tenant, "tenant"),
        profile=encoded(profile, "profile"),
        checks_token_count=after is not None,
        token_count=unsigned(after or 0, "after"),
        replaces=replace,
    )
    protected = sorted({unsigned(index, "a protected token") for index in protected_tokens or ()})
    indices = (ctypes.c_uint64 * max(1, len(protected)))(*protected)
    options.protected_tokens = ctypes.cast(indices, ctypes.POINTER(ctypes.c_uint64))
    options.protected_count = len(protected)
    pointer = ctypes.c_void_p()

    def open_it() -> None:
        with store._handle as native:
            library().call(
                "writer_open",
                native,
                encoded(sequence, "sequence"),
                encoded(model, "model"),
                ctypes.byref(options),
                ctypes.byref(pointer),
            )

    if start is None:
        open_it()
    else:
        with start._handle as prefix:
            options.start = prefix
            open_it()
    assert pointer.value is not None
    info = _abi.WriterInfo.make()
    try:
        library().call("writer_describe", pointer.value, ctypes.byref(info))
    except Error:
        library().release("writer_close", pointer.value)
        raise
    return Writer(pointer.value, sequence, model, info.token_count)


def _set_state(options: _abi.FinishOptions, state: bytes | None) -> object:
    if state is None:
        return None
    # NULL would say that there is none, which is something else than an empty one
    buffer = ctypes.create_string_buffer(bytes(state), max(1, len(state)))
    options.engine_state = ctypes.addressof(buffer)
    options.engine_state_bytes = len(state)
    return buffer


def _set_frames(options: _abi.FinishOptions, frames: Iterable[Frame | tuple[int, int, float]] | None) -> object:
    table = []
    for frame in frames or ():
        first, count, seconds = (frame.first_token, frame.token_count, frame.seconds) if isinstance(frame, Frame) else frame
        table.append(_abi.Frame(unsigned(first, "a frame's first token"), unsigned(count, "a frame's tokens"), float(seconds)))
    native = (_abi.Frame * max(1, len(table)))(*table)
    options.frames = ctypes.cast(native, ctypes.POINTER(_abi.Frame))
    options.frame_count = len(table)
    return native


def _set_provenance(options: _abi.FinishOptions, provenance: Mapping[str, str] | None) -> object:
    texts = [encoded(text, "provenance") for pair in (provenance or {}).items() for text in pair]
    native = (ctypes.c_char_p * max(1, len(texts)))(*texts)
    options.provenance = ctypes.cast(native, ctypes.POINTER(ctypes.c_char_p))
    options.provenance_count = len(texts) // 2
    return native, texts
