"""Small things about torch tensors."""

from __future__ import annotations

from typing import Any

import torch


def bytes_of(tensor: Any) -> memoryview:
    """A tensor's elements in order, as bytes; a copy where it is not on the CPU or not contiguous."""
    plain = tensor.detach().cpu().contiguous().reshape(-1)
    if plain.numel() == 0:
        return memoryview(b"")
    return memoryview(plain.view(torch.uint8).numpy())
