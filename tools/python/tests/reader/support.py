"""Reads and writes cache files, and compares what Python and the `reelkv` command decode."""

import json
import struct
from pathlib import Path

import numpy as np
from safetensors import deserialize

from reelkv.reader import Store, read_key
from reelkv.reader.values import BFLOAT16, ELEMENT_TYPES, FLOAT16, FLOAT32, ElementType

from ..command import ROOT, Command

VECTORS = ROOT / "schema" / "vectors"
OPTION_NAMES = {FLOAT16: "float16", BFLOAT16: "bfloat16", FLOAT32: "float32"}
_TYPES = {kind.name: kind.storage for kind in ELEMENT_TYPES.values()} | {"I32": np.dtype("<i4"), "I64": np.dtype("<i8")}

PLAIN_PROFILES = ["exact", "kivi-2"]
"""Profiles whose decoding is additions and multiplications alone, on any model."""
TURNED_PROFILES = [
    "int8",
    "int4",
    "vidkv-2-2",
    "vidkv-1.5-2",
    "vidkv-1.25-2",
    "vidkv-2-1.58",
    "vidkv-1.75-1.66",
    "vidkv-1.5-1.66",
    "vidkv-1.5-1.58",
    "vidkv-1.25-1.58",
    "vidkv-1-1",
]
"""Profiles that turn keys back: sines and cosines, which libraries may round differently."""


def read_cache(path: Path) -> dict[str, np.ndarray]:
    """Tensors by name; those of floats as bits."""
    tensors = deserialize(path.read_bytes())
    return {name: np.frombuffer(t["data"], _TYPES[t["dtype"]]).reshape(t["shape"]) for name, t in tensors}


def write_cache(path: Path, layers: list[tuple[np.ndarray, np.ndarray]], element_type: ElementType, ids, **others):
    """Layers are bits `[heads, tokens, dim]` of keys and values. Written by hand: numpy has no bfloat16 for a library to take."""
    tensors = {"input_ids": ("I32", np.asarray(ids, np.int32)[np.newaxis])}
    tensors |= {name: ("I32", np.asarray(values, np.int32)) for name, values in others.items()}
    for index, (key, value) in enumerate(layers):
        tensors[f"layers.{index}.key"] = (element_type.name, key[np.newaxis])
        tensors[f"layers.{index}.value"] = (element_type.name, value[np.newaxis])
    header, body = {"__metadata__": {"media_digests": json.dumps(["ab" * 32])}}, b""
    for name, (kind, array) in tensors.items():
        data = array.tobytes()
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def exported(command: Command, store: Path, name: str, element_type: ElementType, *options) -> dict[str, np.ndarray]:
    path = store.parent / f"{store.name}-export.safetensors"
    command(store, "export", name, path, "--dtype", OPTION_NAMES[element_type], "--force", *options)
    return read_cache(path)


def assert_decodes_as_exported(
    command: Command, store: Path, name: str, element_type: ElementType, plain: bool, tenant: str = "default", key_file=None
):
    """What Python decodes from a store is what the Swift command writes into a file, in every layer.

    `plain`: every bit must agree. Otherwise one value in 10,000 may differ in its last place, for libraries whose sines do.
    `key_file`: the tenant's, where it is encrypted.
    """
    options = () if key_file is None else ("--key-file", f"{tenant}={key_file}")
    file = exported(command, store, name, element_type, "--tenant", tenant, *options)
    with Store(store, keys={} if key_file is None else {tenant: read_key(key_file)}) as opened:
        head = opened.head(name, tenant)
        layer_count = len(opened.model(head.record.model_id).layers)
        assert head.record.token_count == file["input_ids"].shape[1]
        for layer in range(layer_count):
            cache = opened.read(head, layer, element_type)
            for kind, decoded in (("key", cache.key), ("value", cache.value)):
                expected = file[f"layers.{layer}.{kind}"][0]
                held = decoded[:, cache.first_token :]
                assert held.shape == expected.shape
                distance = distances(held, expected)
                assert distance.max() <= (0 if plain else 1), f"{name}, layer {layer}, {kind}"
                assert np.count_nonzero(distance) <= 1e-4 * distance.size, f"{name}, layer {layer}, {kind}"
    assert f"layers.{layer_count}.key" not in file


def distances(bits: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many units in the last place lie between floats, which are given as their bits."""
    return np.abs(_ordered(bits) - _ordered(others))


def _ordered(bits: np.ndarray) -> np.ndarray:
    """Integers in the order of the floats: neighbours differ by 1."""
    width = 8 * bits.dtype.itemsize
    wide = bits.astype(np.int64)
    return np.where(wide >> (width - 1), (1 << (width - 1)) - wide, wide)
