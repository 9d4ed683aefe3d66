"""KIVI at 2 bits (arXiv 2402.02750): keys in groups along the tokens of a channel, values along the channels of a token.

The newest tokens stay in float16 until enough of them have come: of keys those beyond a multiple of `RESIDUAL`, of values always the
last `RESIDUAL`.
"""

import torch

from .scheme import FLOAT16_BITS, Approximation

GROUP = 32
RESIDUAL = 128
BITS = 2


def two_bits_each(key: torch.Tensor, value: torch.Tensor) -> Approximation:
    tokens = key.shape[1]
    key_count, value_count = tokens - tokens % RESIDUAL, max(0, tokens - RESIDUAL)
    quantized_key = min_max(key[:, :key_count].transpose(1, 2)).transpose(1, 2)
    return Approximation(
        torch.cat([quantized_key, key[:, key_count:]], 1),
        torch.cat([min_max(value[:, :value_count]), value[:, value_count:]], 1),
        _bits(key, key_count) + _bits(value, value_count),
    )


def min_max(x: torch.Tensor) -> torch.Tensor:
    """Evenly spaced levels between the least and the greatest of each group along the last dimension, and back."""
    grouped = x.unflatten(-1, (-1, GROUP))
    low = grouped.amin(-1, keepdim=True)
    scale = (grouped.amax(-1, keepdim=True) - low) / (2**BITS - 1)
    codes = ((grouped - low) / scale.clamp_min(torch.finfo(x.dtype).tiny)).round().clamp(0, 2**BITS - 1)
    return (codes * scale + low).flatten(-2)


def _bits(x: torch.Tensor, quantized: int) -> int:
    """Codes, a float16 scale and minimum for each group, and what stays in float16."""
    heads, tokens, dim = x.shape
    per_element = BITS + 2 * FLOAT16_BITS / GROUP
    return int(heads * dim * (per_element * quantized + FLOAT16_BITS * (tokens - quantized)))
