"""What identifies the weights of a model in memory."""

from __future__ import annotations

import hashlib
from typing import Any

from .. import _progress
from ..errors import InvalidArgument
from .tensors import bytes_of


def state_fingerprint(model: Any, progress: bool | None = None) -> str:
    """64 hexadecimal digits over the names, shapes, types and bytes of everything in a model's `state_dict`.

    It holds whatever was loaded, merged or changed in memory, and takes about a second per gigabyte. For weights that are as their files
    have them, `weights_fingerprint(folder)` is remembered between runs; the two are not the same digits.

    Raises:
        InvalidArgument: weights that are no plain tensors. Identify them yourself: `Cache(..., weights=...)`.
    """
    state = model.state_dict()
    total = sum(tensor.numel() * tensor.element_size() for tensor in state.values() if hasattr(tensor, "numel"))
    digest = hashlib.blake2b(b"reelkv state 1\n", digest_size=32)
    with _progress.Progress(total, "B", "hashing weights", progress) as bar:
        for name, tensor in sorted(state.items()):
            try:
                described = f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0"
                data = bytes_of(tensor)
            except (AttributeError, RuntimeError, TypeError, NotImplementedError) as error:
                raise InvalidArgument(
                    f"'{name}' is no plain tensor ({error}): pass weights=FOLDER or 64 hexadecimal digits that identify the weights"
                ) from error
            digest.update(described.encode())
            digest.update(data)
            bar.advance(len(data))
    return digest.hexdigest()
