"""Element types of caches, and bfloat16, which numpy lacks: its values travel as uint16 bits."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ElementType:
    """How one element is kept. `storage` is the numpy type of its bits."""

    code: int
    name: str
    storage: np.dtype

    @property
    def byte_count(self) -> int:
        return self.storage.itemsize

    def to_float32(self, bits: np.ndarray) -> np.ndarray:
        """The values behind the bits; exact for every type."""
        if self is BFLOAT16:
            return (bits.astype(np.uint32) << 16).view(np.float32)
        return bits.view(np.float16 if self is FLOAT16 else np.float32).astype(np.float32)

    def from_float32(self, values: np.ndarray) -> np.ndarray:
        """Round to nearest, ties to even; the bits."""
        values = np.ascontiguousarray(values, np.float32)
        if self is BFLOAT16:
            return _round_to_bfloat16(values)
        if self is FLOAT16:
            with np.errstate(over="ignore"):
                return values.astype(np.float16).view(np.uint16)
        return values.view(np.uint32)

    def convert(self, bits: np.ndarray, source: "ElementType") -> np.ndarray:
        """Bits of another type as bits of this one, rounded to nearest; the same bits where the types are one."""
        return bits if source is self else self.from_float32(source.to_float32(bits))


def _round_to_bfloat16(values: np.ndarray) -> np.ndarray:
    bits = values.view(np.uint32)
    odd = (bits >> 16) & 1
    rounded = ((bits + (np.uint32(0x7FFF) + odd)) >> 16).astype(np.uint16)
    quiet = ((bits >> 16) | 0x40).astype(np.uint16)  # rounding could carry a NaN into infinity
    return np.where(np.isnan(values), quiet, rounded)


FLOAT16 = ElementType(1, "F16", np.dtype("<u2"))
BFLOAT16 = ElementType(2, "BF16", np.dtype("<u2"))
FLOAT32 = ElementType(3, "F32", np.dtype("<u4"))

ELEMENT_TYPES = {kind.code: kind for kind in (FLOAT16, BFLOAT16, FLOAT32)}
