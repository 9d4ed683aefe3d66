"""What a way to quantize a layer's cache gives back."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

FLOAT16_BITS = 16


@dataclass(frozen=True)
class Approximation:
    """A layer's keys and values after quantizing, `[heads, tokens, dim]`, and the bits that they took."""

    key: torch.Tensor
    value: torch.Tensor
    bit_count: int


Scheme = Callable[[torch.Tensor, torch.Tensor], Approximation]
"""From a layer's keys and values to their approximation."""


def in_whole_groups(x: torch.Tensor, group: int, round_trip: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Approximates the tokens that fill groups; the last ones, too few for a group, stay as they are."""
    whole = x.shape[1] - x.shape[1] % group
    if whole == 0:
        return x
    return torch.cat([round_trip(x[:, :whole]), x[:, whole:]], 1)
