"""Tensors of numpy, torch and mlx as the library sees them: an address, strides, a shape and an element type. Nothing is copied where
the memory can be used as it is."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _abi, dtypes
from .errors import InvalidArgument

Array = Any
"""A numpy array, a torch CPU tensor or, where it is only read, an mlx array: `[heads, tokens, dim]` or `[1, heads, tokens, dim]`."""

# an address for tensors without elements: NULL would say that the tensor is not wanted
_NOTHING = ctypes.create_string_buffer(8)


@dataclass(frozen=True)
class View:
    """Memory of a tensor `[heads, tokens, dim]`. Strides count elements; `keep` owns the memory."""

    address: int
    shape: tuple[int, int, int]
    strides: tuple[int, int, int]
    dtype: int
    keep: Any

    def native(self) -> _abi.Tensor:
        heads, tokens, dim = self.shape
        address = self.address if heads * tokens * dim else ctypes.addressof(_NOTHING)
        return _abi.Tensor(address, *self.strides, heads, tokens, dim, self.dtype)


def is_torch(array: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def source(array: Array, what: str) -> View:
    """Memory to read from. Copies only what has strides or an alignment that the library does not take."""
    if is_torch(array):
        return _torch_view(array.detach(), what)
    if type(array).__module__.split(".")[0] == "mlx":
        array = _from_mlx(array)
    return _numpy_view(np.asarray(array), what, may_copy=True)


def destination(array: Array, what: str) -> View:
    """Memory to write to, as it is. Raises InvalidArgument for what cannot be written in place."""
    if is_torch(array):
        if array.requires_grad:
            raise InvalidArgument(f"{what} requires grad, and is to be written behind autograd's back: pass its .detach()")
        view = _torch_view(array, what)
    elif isinstance(array, np.ndarray):
        if not array.flags.writeable:
            raise InvalidArgument(f"{what} is a read-only array: pass one that can be written")
        view = _numpy_view(array, what, may_copy=False)
    else:
        raise InvalidArgument(
            f"{what} must be a numpy array or a torch tensor, not {type(array).__name__}: restore into numpy and convert"
        )
    is_expanded = any(stride == 0 and length > 1 for stride, length in zip(view.strides, view.shape))
    if is_expanded and 0 not in view.shape:
        raise InvalidArgument(f"{what} is an expanded tensor, whose elements share memory: pass a tensor of its own")
    return view


def native_layers(views: Sequence[tuple[View | None, View | None]]) -> Any:
    """An array of the library's layers; None for a tensor that is not wanted."""
    layers = (_abi.Layer * max(1, len(views)))()
    for at, (key, value) in enumerate(views):
        layers[at] = _abi.Layer(
            key.native() if key is not None else _abi.Tensor(), value.native() if value is not None else _abi.Tensor()
        )
    return layers


def _without_batch(shape: tuple[int, ...], strides: tuple[int, ...], what: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if len(shape) == 4 and shape[0] == 1:
        shape, strides = shape[1:], strides[1:]
    if len(shape) != 3:
        raise InvalidArgument(
            f"{what} has the shape {list(shape)}; it must be [heads, tokens, dim] or [1, heads, tokens, dim]: one sequence at a time"
        )
    return shape, strides


def _numpy_view(array: np.ndarray[Any, Any], what: str, may_copy: bool) -> View:
    code = dtypes.code_of_array(array.dtype)
    if code is None:
        raise InvalidArgument(
            f"{what} has elements of {array.dtype}; a cache holds float16, float32, or bfloat16 as uint16 bits or of ml_dtypes"
        )
    size = array.dtype.itemsize
    fits = array.flags.aligned and all(stride >= 0 and stride % size == 0 for stride in array.strides)
    if not fits:
        if not may_copy:
            raise InvalidArgument(f"{what} is not aligned, or runs backwards in memory: pass an array that does not")
        array = np.ascontiguousarray(array)
    shape, strides = _without_batch(array.shape, tuple(stride // size for stride in array.strides), what)
    return View(array.ctypes.data, (shape[0], shape[1], shape[2]), (strides[0], strides[1], strides[2]), code, array)


def _torch_view(tensor: Any, what: str) -> View:
    import torch

    if tensor.device.type != "cpu":
        raise InvalidArgument(
            f"{what} is on the device '{tensor.device}', and the library reads and writes the CPU's memory: pass .cpu() to store it, or "
            "restore into a CPU tensor and copy that with .to(device)"
        )
    if tensor.layout != torch.strided:
        raise InvalidArgument(f"{what} is a {tensor.layout} tensor: pass .to_dense()")
    try:
        code = dtypes.code_of(tensor.dtype)
    except InvalidArgument:
        raise InvalidArgument(f"{what} has elements of {tensor.dtype}; a cache holds float16, bfloat16 or float32") from None
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
    shape, strides = _without_batch(tuple(tensor.shape), tensor.stride(), what)
    return View(tensor.data_ptr(), (shape[0], shape[1], shape[2]), (strides[0], strides[1], strides[2]), code, tensor)


def _from_mlx(array: Any) -> np.ndarray[Any, Any]:
    """A copy in numpy, which has no bfloat16."""
    import mlx.core as mx

    return np.array(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array)
