"""What a cache was computed from: token ids, the media behind placeholders, position ids."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import _abi
from .errors import InvalidArgument

PLACEHOLDER = -1
"""How the id of a token inside a media span reads, when tokens come from a store."""

IDs: TypeAlias = "Sequence[int] | NDArray[Any] | Any"
"""Token ids: integers, `[tokens]` or `[1, tokens]`, in a list, a numpy array or a tensor."""

TokensLike: TypeAlias = "Tokens | IDs"


@dataclass(frozen=True)
class MediaSpan:
    """A run of placeholder tokens that stand for media: frames of a video, patches of an image.

    Two placeholders are the same token only where digest and offset agree, whatever their ids.
    """

    digest: bytes
    """32 bytes that identify the decoded media *and* its sampling. 64 hexadecimal digits are taken, too."""
    first_token: int
    """Index of the span's first token."""
    count: int
    """Tokens in the span."""
    media_offset: int = 0
    """Index within the media of the span's first token: not 0 where text interrupts a video's frames."""

    def __post_init__(self) -> None:
        digest: Any = self.digest
        if isinstance(digest, str):
            try:
                object.__setattr__(self, "digest", bytes.fromhex(digest))
            except ValueError:
                raise InvalidArgument(f"a media digest is 64 hexadecimal digits, not {digest!r}") from None
        elif isinstance(digest, (bytearray, memoryview)):
            object.__setattr__(self, "digest", bytes(digest))
        if not isinstance(self.digest, bytes) or len(self.digest) != 32:
            raise InvalidArgument("a media digest has 32 bytes: use a hash of the decoded frames and how they were sampled")
        if self.first_token < 0 or self.count <= 0 or self.media_offset < 0:
            raise InvalidArgument(f"a media span cannot begin or count below 0, or be empty: {self}")

    @property
    def end(self) -> int:
        """Index behind its last token."""
        return self.first_token + self.count


class Tokens:
    """A token sequence. Immutable; a slice of it is one, with its media spans cut and counted from the new start.

    Positions that are None stay so in a slice: for a writer they mean each token's index in the whole sequence.

    Attributes:
        ids: int32 `[tokens]`. What stands inside media spans does not matter.
        media: the spans, in ascending order, apart from each other.
        positions: int32 `[streams, tokens]` with 1 stream, or 3 for M-RoPE; None where each token's position is its index.
    """

    __slots__ = ("ids", "media", "positions")

    def __init__(self, ids: IDs, media: Sequence[MediaSpan] = (), positions: Any = None):
        """
        Args:
            ids: integers, `[tokens]` or `[1, tokens]`.
            positions: integers, `[tokens]`, `[streams, tokens]` or `[streams, 1, tokens]`.

        Raises:
            InvalidArgument: ids that are no 32-bit integers, spans that overlap or leave the tokens, positions of another length.
        """
        self.ids: NDArray[np.int32] = _integers(ids, "token ids")
        self.media: tuple[MediaSpan, ...] = tuple(media)
        self.positions: NDArray[np.int32] | None = None if positions is None else _positions(positions, len(self.ids))
        end = 0
        for span in self.media:
            if span.first_token < end or span.end > len(self.ids):
                raise InvalidArgument(
                    f"the media span of {span.count} tokens at {span.first_token} overlaps the one before or leaves the "
                    f"{len(self.ids)} tokens"
                )
            end = span.end

    @classmethod
    def of(cls, tokens: TokensLike) -> Tokens:
        """The tokens themselves, or bare ids as tokens."""
        return tokens if isinstance(tokens, Tokens) else cls(tokens)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, part: slice) -> Tokens:
        start, stop, step = part.indices(len(self))
        if step != 1:
            raise InvalidArgument("tokens are sliced without a step")
        stop = max(start, stop)
        media = []
        for span in self.media:
            first, end = max(span.first_token, start), min(span.end, stop)
            if first < end:
                media.append(MediaSpan(span.digest, first - start, end - first, span.media_offset + first - span.first_token))
        positions = None if self.positions is None else self.positions[:, start:stop]
        return Tokens(self.ids[start:stop], media, positions)

    def __eq__(self, other: object) -> bool:
        """Whether both are the same tokens: ids (but for placeholders'), media and positions."""
        if not isinstance(other, Tokens):
            return NotImplemented
        return len(self) == len(other) and self.common_prefix(other) == len(self)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        what = f", {len(self.media)} media spans" if self.media else ""
        return f"<reelkv.Tokens: {len(self)} tokens{what}>"

    def common_prefix(self, other: Tokens) -> int:
        """How many tokens both begin with: same text, same media at the same offsets, same positions."""
        count = min(len(self), len(other))
        differs = self._identity(count) != other._identity(count)
        return int(np.argmax(differs.any(axis=0))) if differs.any() else count

    def _identity(self, count: int) -> NDArray[np.int64]:
        """`[rows, count]` integers, equal in a column where the token is the same."""
        rows = np.zeros((9, count), np.int64)
        rows[0] = self.ids[:count]
        for span in self.media:
            first, end = span.first_token, min(span.end, count)
            if first < end:
                rows[0, first:end] = PLACEHOLDER
                rows[1:5, first:end] = np.frombuffer(span.digest, np.int64)[:, np.newaxis]
                rows[5, first:end] = np.arange(span.media_offset, span.media_offset + end - first)
        rows[6:] = np.arange(count) if self.positions is None else self.positions[:, :count]
        return rows

    def _native(self) -> tuple[_abi.Tokens, list[Any]]:
        """The struct, and what must live as long as it."""
        ids = np.ascontiguousarray(self.ids)
        spans = (_abi.MediaSpan * max(1, len(self.media)))()
        for at, span in enumerate(self.media):
            spans[at] = _abi.MediaSpan(
                (ctypes.c_uint8 * 32).from_buffer_copy(span.digest), span.first_token, span.count, span.media_offset
            )
        native = _abi.Tokens.make(count=len(ids), media_count=len(self.media))
        native.ids = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        native.media = ctypes.cast(spans, ctypes.POINTER(_abi.MediaSpan))
        keeps: list[Any] = [ids, spans]
        if self.positions is not None:
            positions = np.ascontiguousarray(self.positions)
            native.positions = positions.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
            native.position_streams = len(positions)
            keeps.append(positions)
        return native, keeps

    @classmethod
    def _from_native(cls, native: _abi.Tokens) -> Tokens:
        """A copy of what a struct holds."""
        count, streams = native.count, native.position_streams
        ids = np.ctypeslib.as_array(native.ids, (count,)).copy() if count else np.empty(0, np.int32)
        media = [
            MediaSpan(bytes(span.digest), span.first_token, span.count, span.media_offset)
            for span in (native.media[at] for at in range(native.media_count))
        ]
        positions = np.ctypeslib.as_array(native.positions, (streams, count)).copy() if native.positions and count else None
        return cls(ids, media, positions)


def _integers(values: Any, what: str) -> NDArray[np.int32]:
    """`[n]` int32 from integers `[n]` or `[1, n]`."""
    array = _plain_array(values, what)
    if array.ndim == 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 1:
        raise InvalidArgument(f"{what} must be [tokens] or [1, tokens], not {list(array.shape)}: give one sequence at a time")
    return array


def _positions(values: Any, count: int) -> NDArray[np.int32]:
    array = _plain_array(values, "position ids")
    if array.ndim == 1:
        array = array[np.newaxis]
    elif array.ndim == 3 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 2 or array.shape[0] not in (1, 3) or array.shape[1] != count:
        raise InvalidArgument(f"position ids must be [1, {count}] or [3, {count}], one per token, not {list(array.shape)}")
    return array


def _plain_array(values: Any, what: str) -> NDArray[np.int32]:
    """Integers as int32, in C order; a copy that nobody else changes."""
    if hasattr(values, "detach"):  # torch, which may be on another device
        values = values.detach().cpu().numpy()
    array = np.asarray(values)
    if array.size == 0:
        return np.zeros(array.shape, np.int32)
    if array.dtype.kind not in "iu":
        raise InvalidArgument(f"{what} must be integers, not {array.dtype}")
    limits = np.iinfo(np.int32)
    if array.min() < limits.min or array.max() > limits.max:
        raise InvalidArgument(f"{what} must fit 32 bits")
    result = np.array(array, np.int32, order="C")
    result.flags.writeable = False
    return result
