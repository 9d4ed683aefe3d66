"""Rotary position embedding of decoded keys (RoPE, arXiv 2104.09864; FORMAT.md, "Rotary embedding")."""

import numpy as np

from .model import PAIRING_HALVES, Rotary


def rotate(keys: np.ndarray, rotary: Rotary, positions: np.ndarray) -> np.ndarray:
    """Turns float32 keys `[heads, tokens, dim]`; `positions` are `[streams, tokens]`. Channels beyond the pairs stay."""
    pairs = len(rotary.inverse_frequencies)
    streams = _streams_of_pairs(rotary, len(positions))
    angles = positions.T[:, streams].astype(np.float64) * rotary.inverse_frequencies.astype(np.float64)
    cosines, sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    if rotary.pairing == PAIRING_HALVES:
        first, second = slice(0, pairs), slice(pairs, 2 * pairs)
    else:
        first, second = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
    a, b = keys[..., first], keys[..., second]
    turned = keys.copy()
    turned[..., first] = a * cosines - b * sines
    turned[..., second] = b * cosines + a * sines
    return turned


def _streams_of_pairs(rotary: Rotary, stream_count: int) -> np.ndarray:
    """Which position stream each pair follows: M-RoPE's sections in order, or one stream for all."""
    if stream_count == 1 or not rotary.sections:
        return np.zeros(len(rotary.inverse_frequencies), np.intp)
    return np.minimum(np.repeat(np.arange(len(rotary.sections)), rotary.sections), stream_count - 1)
