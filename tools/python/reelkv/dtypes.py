"""Element types of caches. numpy has no bfloat16: such values travel as the bits, in uint16."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidArgument

FLOAT16, BFLOAT16, FLOAT32 = 1, 2, 3
"""As the library numbers them."""

NAMES = {FLOAT16: "float16", BFLOAT16: "bfloat16", FLOAT32: "float32"}
STORAGE: dict[int, np.dtype[Any]] = {
    FLOAT16: np.dtype(np.float16),
    BFLOAT16: np.dtype(np.uint16),
    FLOAT32: np.dtype(np.float32),
}
_CODES = {name: code for code, name in NAMES.items()}
_SHORT = {"half": "float16", "float": "float32", "f16": "float16", "bf16": "bfloat16", "f32": "float32", "fp16": "float16", "fp32": "float32"}


def name_of(dtype: Any) -> str:
    """`float16`, `bfloat16` or `float32`, from such a name, or torch's or numpy's object of that name."""
    if isinstance(dtype, str):
        text = dtype
    elif isinstance(dtype, type) and issubclass(dtype, np.generic):
        text = np.dtype(dtype).name
    else:
        text = str(dtype)
    text = text.removeprefix("torch.").removeprefix("mlx.core.")
    text = _SHORT.get(text.lower(), text)
    if text not in _CODES:
        raise InvalidArgument(f"a cache's elements are float16, bfloat16 or float32, not {dtype!r}")
    return text


def code_of(dtype: Any) -> int:
    """The same as the library's number."""
    return _CODES[name_of(dtype)]


def code_of_array(dtype: np.dtype[Any]) -> int | None:
    """What the elements of a numpy array are; None if they are nothing that a cache holds. uint16 holds the bits of bfloat16, as does
    the type of the package ml_dtypes."""
    if not dtype.isnative:
        return None
    if dtype == np.uint16 or dtype.name == "bfloat16":
        return BFLOAT16
    return {"float16": FLOAT16, "float32": FLOAT32}.get(dtype.name)


def bfloat16_to_float32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The values behind bfloat16 bits; exact."""
    return (np.asarray(bits, np.uint16).astype(np.uint32) << 16).view(np.float32)


def float32_to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of the nearest bfloat16 values, ties to even; NaN stays NaN."""
    values = np.ascontiguousarray(values, np.float32)
    bits = values.view(np.uint32)
    rounded = ((bits + (np.uint32(0x7FFF) + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    quiet = ((bits >> 16) | 0x40).astype(np.uint16)  # rounding could carry a NaN into infinity
    return np.where(np.isnan(values), quiet, rounded)
