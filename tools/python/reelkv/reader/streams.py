"""Bytes that are stored as they are or as one zstd frame."""

import zstandard

from .errors import FormatError

RAW, ZSTD, SHARED = 1, 2, 3


def expand(stored: bytes, encoding: int, byte_count: int, what: str) -> bytes:
    """The `byte_count` bytes behind `stored`; `what` they are is said in errors."""
    if encoding not in (RAW, ZSTD):
        raise FormatError(f"{what}: encoding {encoding} is unknown")
    raw = bytes(stored) if encoding == RAW else _decompress(bytes(stored), byte_count, what)
    if len(raw) != byte_count:
        raise FormatError(f"{what}: {len(raw)} bytes where {byte_count} belong")
    return raw


def _decompress(frame: bytes, byte_count: int, what: str) -> bytes:
    try:
        # a frame may say how much it holds: that is checked before it becomes the size of a buffer
        if zstandard.frame_content_size(frame) not in (-1, byte_count):
            raise FormatError(f"{what}: a compressed stream of another length than the {byte_count} bytes that belong there")
        return zstandard.ZstdDecompressor().decompress(frame, max_output_size=byte_count, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FormatError(f"{what}: not a zstd frame of {byte_count} bytes: {error}") from None
