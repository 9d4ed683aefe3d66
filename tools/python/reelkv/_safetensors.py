"""safetensors files with numpy alone: bfloat16 travels as its bits, in uint16."""

from __future__ import annotations

import json
import mmap
import os
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidArgument

_HEADER_BYTES_MAX = 100 << 20
_STORAGE: dict[str, np.dtype[Any]] = {
    name: np.dtype(kind)
    for name, kind in {
        "BF16": "<u2", "F16": "<f2", "F32": "<f4", "F64": "<f8",
        "I8": "<i1", "I16": "<i2", "I32": "<i4", "I64": "<i8",
        "U8": "<u1", "U16": "<u2", "U32": "<u4", "U64": "<u8", "BOOL": "?",
    }.items()
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """An array and its element type as the format names it."""

    dtype: str
    array: NDArray[Any]


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, as read-only views of the mapped file, and the header's metadata.

    Raises:
        InvalidArgument: it is no safetensors file, or says something impossible.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < 8:
            raise _problem(path, "it is too short")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    (length,) = struct.unpack_from("<Q", data)
    if length > min(size - 8, _HEADER_BYTES_MAX):
        raise _problem(path, f"its header would have {length} bytes")
    try:
        header = json.loads(data[8 : 8 + length])
    except ValueError:
        raise _problem(path, "its header is not valid JSON") from None
    if not isinstance(header, dict):
        raise _problem(path, "its header is no JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _problem(path, "its metadata is not text by text")
    body = memoryview(data)[8 + length :]
    return {name: _tensor(path, name, entry, body) for name, entry in header.items()}, metadata


def _tensor(path: str | os.PathLike[str], name: str, entry: Any, body: memoryview) -> Tensor:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, begin, end]
    except (TypeError, KeyError, ValueError):
        raise _problem(path, f"it does not say what tensor '{name}' is") from None
    if dtype not in _STORAGE:
        raise _problem(path, f"tensor '{name}' has elements of {dtype}, which are not known here")
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise _problem(path, f"tensor '{name}' has an impossible shape or place")
    count = 1
    for length in shape:
        count *= length
    storage = _STORAGE[dtype]
    if end > len(body) or end - begin != count * storage.itemsize:
        raise _problem(path, f"tensor '{name}' does not lie within the file")
    return Tensor(dtype, np.frombuffer(body[begin:end], storage).reshape(shape))


def write(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a file, which is there whole or not at all. The same input gives the same bytes.

    Tensors lie in the order given, wide elements first, so that each is aligned.
    """
    ordered = sorted(tensors.items(), key=lambda item: -item[1].array.itemsize)
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, tensor in ordered:
        end = offset + tensor.array.nbytes
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.array.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    partial = f"{os.fspath(path)}.{os.getpid()}-{threading.get_ident()}.part"
    with open(partial, "wb") as file:
        try:
            file.write(struct.pack("<Q", len(text)))
            file.write(text)
            for _, tensor in ordered:
                if tensor.array.size:
                    file.write(np.ascontiguousarray(tensor.array).data.cast("B"))
            file.flush()
            os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            os.unlink(partial)
            raise


def _problem(path: str | os.PathLike[str], message: str) -> InvalidArgument:
    return InvalidArgument(f"{os.fspath(path)} is no safetensors file that can be read: {message}")
