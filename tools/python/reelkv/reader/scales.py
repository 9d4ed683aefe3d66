"""Scales and means of groups: one byte and a small integer each (FORMAT.md, "Scales and means")."""

import struct

import numpy as np

from .errors import FormatError
from .section import ANCHORS, MEANS, SCALES, Part

# the bits of the floats nearest to 2^(i/16), because libraries disagree about exp2 in the last bit
SIXTEENTHS = np.array(
    [
        0x3F800000, 0x3F85AAC3, 0x3F8B95C2, 0x3F91C3D3, 0x3F9837F0, 0x3F9EF532, 0x3FA5FED7, 0x3FAD583F,
        0x3FB504F3, 0x3FBD08A4, 0x3FC5672A, 0x3FCE248C, 0x3FD744FD, 0x3FE0CCDF, 0x3FEAC0C7, 0x3FF5257D,
    ],
    np.uint32,
)  # fmt: skip


def read_scales_and_means(part: Part, heads: int, groups: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 `[heads, groups, columns]` each."""
    shape = (heads, groups, columns)
    codes = restore_scale_codes(np.frombuffer(part.stream(SCALES, heads * groups * columns), np.uint8).reshape(shape))
    means = restore_means(_read_means(part, shape))
    scales, units = np.empty(shape, np.float32), np.empty((heads, 1, columns), np.float32)
    anchors = struct.iter_unpack("<bB", part.stream(ANCHORS, 2 * heads))
    for head, (anchor, steps) in enumerate(anchors):
        values = scale_values(anchor, steps)
        scales[head] = values[codes[head]]
        units[head] = mean_units(codes[head], values, part.record.mean_shift)
    return scales, means.astype(np.float32) * units


def scale_values(anchor: int, steps: int) -> np.ndarray:
    """What each of the 256 scale codes stands for: 0, or 2^(anchor + (code - 128) / 2^steps)."""
    if steps > 4:
        raise FormatError(f"{steps} is no step of scale codes")
    sixteenths = (np.arange(256) - 128) * (1 << (4 - steps))
    exponents = np.clip(anchor + sixteenths // 16, -126, 127)
    bits = SIXTEENTHS[sixteenths % 16] & 0x007FFFFF | (exponents + 127).astype(np.uint32) << 23
    bits[0] = 0
    return bits.view(np.float32)


def restore_scale_codes(stored: np.ndarray) -> np.ndarray:
    """Undoes the prediction of each group's code from the column's codes before it: `[heads, groups, columns]`."""
    codes = np.empty_like(stored)
    prediction = np.full_like(stored[:, 0], 128)
    for group in range(stored.shape[1]):
        codes[:, group] = code = stored[:, group] + prediction
        mean = (prediction.astype(np.uint16) + code + 1) >> 1
        prediction = code if group == 0 else mean.astype(np.uint8)
    return codes


def mean_units(codes: np.ndarray, values: np.ndarray, shift: int) -> np.ndarray:
    """The unit of each column's means: its mean scale code's value, times 2^-shift. `codes` are `[groups, columns]`."""
    sums, counts = codes.sum(axis=0, dtype=np.int64), np.count_nonzero(codes, axis=0)
    units = values[sums // np.maximum(counts, 1)] * np.float32(1 / (1 << shift))
    return np.where(counts > 0, units, np.float32(0))


def _read_means(part: Part, shape: tuple[int, int, int]) -> np.ndarray:
    """Zigzag differences from the group before, as u32."""
    means = np.zeros(shape, np.uint32)
    for plane in range(part.mean_planes):
        raw = np.frombuffer(part.stream(MEANS, means.size, plane), np.uint8)
        means |= raw.reshape(shape).astype(np.uint32) << (8 * plane)
    return means


def restore_means(zigzag: np.ndarray) -> np.ndarray:
    differences = (zigzag >> 1) ^ (np.uint32(0) - (zigzag & 1))
    return np.cumsum(differences, axis=1, dtype=np.uint32).view(np.int32)
