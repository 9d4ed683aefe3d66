"""Chain hashes: a page is named by the model, the tenant, and every token up to its end (FORMAT.md, "Chain hash")."""

import hashlib
import struct


class ChainHasher:
    def __init__(self, salt: bytes, model_bytes: bytes, page_tokens: int):
        self.salt = salt
        self.root = self._hash(b"ReelKV chain 1" + struct.pack("<I", page_tokens) + model_bytes)

    def page(self, base: bytes, tokens: bytes) -> bytes:
        """A full page after `base`; `tokens` are its canonical tokens."""
        return self._hash(b"P" + struct.pack("<I", 0) + base + tokens)

    def piece(self, parent: bytes, start: int, tokens: bytes) -> bytes:
        """A tail piece behind `parent`, with a page's tokens from `start` on; `tokens` are the page's up to the piece's end."""
        return self._hash(b"T" + struct.pack("<I", start) + parent + tokens)

    def _hash(self, message: bytes) -> bytes:
        return hashlib.blake2b(message, key=self.salt, digest_size=32).digest()
