"""llama.cpp's cache types q8_0 and q4_0: blocks of 32 along the channels of a token, one float16 scale each, no minimum."""

import torch

from .scheme import FLOAT16_BITS, Approximation

BLOCK = 32


def q8_0(key: torch.Tensor, value: torch.Tensor) -> Approximation:
    return Approximation(_eight_bits(key), _eight_bits(value), _bits(key, 8) + _bits(value, 8))


def q4_0(key: torch.Tensor, value: torch.Tensor) -> Approximation:
    return Approximation(_four_bits(key), _four_bits(value), _bits(key, 4) + _bits(value, 4))


def _eight_bits(x: torch.Tensor) -> torch.Tensor:
    """Codes -127…127 of the block's greatest magnitude."""
    blocks = x.unflatten(-1, (-1, BLOCK))
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    return (_divided(blocks, scale).round() * scale.half()).flatten(-2)


def _four_bits(x: torch.Tensor) -> torch.Tensor:
    """Codes 0…15 that stand for -8…7 scales; the scale has the sign that puts the value of greatest magnitude at -8."""
    blocks = x.unflatten(-1, (-1, BLOCK))
    greatest = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
    scale = greatest / -8
    codes = (_divided(blocks, scale) + 8.5).floor().clamp(0, 15)
    return ((codes - 8) * scale.half()).flatten(-2)


def _divided(blocks: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return torch.where(scale == 0, 0, blocks / torch.where(scale == 0, 1, scale))


def _bits(x: torch.Tensor, code: int) -> int:
    return x.numel() * code + x.numel() // BLOCK * FLOAT16_BITS
