"""Reads ReelKV stores without the Swift library: a second implementation of schema/FORMAT.md, in numpy.

It shares no code with the Swift one, so that each can check the other. It is written to be read, not to be fast, and it never
writes to a store.

    from reelkv.reader import Store

    with Store("path/to/store") as store:
        head = store.head("video/clip")
        cache = store.read(head, layer=0)
        keys = cache.element_type.to_float32(cache.key)  # [heads, tokens, dim]
"""

from .codec import decode_layer
from .errors import ChecksumError, FormatError, KeyRequiredError, NotStoredError, WrongKeyError
from .image import PageImage
from .sealing import read_key
from .store import LayerCache, Segment, Store
from .verify import verify

__all__ = [
    "ChecksumError",
    "FormatError",
    "KeyRequiredError",
    "LayerCache",
    "NotStoredError",
    "PageImage",
    "Segment",
    "Store",
    "WrongKeyError",
    "decode_layer",
    "read_key",
    "verify",
]
