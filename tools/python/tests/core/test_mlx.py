"""Prompt caches of mlx-lm, in both of its layouts: what comes in, what goes out, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from reelkv import Conflict, InvalidArgument, MediaSpan, ModelMismatch, Tokens, _safetensors, float32_to_bfloat16, mlx
from reelkv._safetensors import Tensor

from .caches import MODEL, assert_same, cache, ids, part, spec, write

COUNT, WINDOW = 100, 24
LAYOUTS = ["0.31", "0.32"]


def header(layout: str, classes: list[str], scalars: list[str], infos: dict[str, str]) -> dict[str, str]:
    """As mlx_lm.models.cache.save_prompt_cache flattens what it notes."""
    named = {"model": "tiny", "tokenizer_config": "{}"}
    if layout == "0.31":
        return infos | {f"1.{key}": text for key, text in named.items()} | {f"2.{at}": name for at, name in enumerate(classes)}
    noted = {f"0.{key}": text for key, text in named.items()} | {f"1.{at}": name for at, name in enumerate(classes)} | {"2.0": ""}
    for at, name in enumerate(scalars, 1):
        noted |= {f"2.{at}.0": name, f"2.{at}.1": "scalar"}
    return noted


def plain_file(path, layout: str, layers, room: int = 0):
    """What mlx-lm writes of a model whose layers attend to all tokens: newer versions with room at the end."""
    tensors, scalars, infos = {}, [], {}
    for index, pair in enumerate(layers):
        for at, array in enumerate(pair):
            padding = np.full((array.shape[0], room, array.shape[2]), 7, array.dtype)
            tensors[f"{index}.{at}"] = Tensor("F32", np.concatenate([array, padding], 1)[np.newaxis])
        if layout == "0.32":
            tensors[f"{index}.2"] = Tensor("I32", np.array(array.shape[1], np.int32))
            scalars.append(f"{index}.2")
        else:
            infos[f"0.{index}"] = ""
    _safetensors.write(path, tensors, header(layout, ["KVCache"] * len(layers), scalars, infos))
    return path


@pytest.mark.parametrize("layout, room", [("0.31", 0), ("0.32", 0), ("0.32", 156)])
def test_a_cache_is_read(tmp_path, layout, room):
    read = mlx.load_cache(plain_file(tmp_path / "cache.safetensors", layout, cache(COUNT), room))
    assert (read.token_count, read.dtype, read.windows, read.tokens) == (COUNT, "float32", [None] * 3, None)
    assert read.metadata == {"model": "tiny", "tokenizer_config": "{}"}
    assert_same(read.layers, cache(COUNT))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("at", [24, 5, 1, 40])
def test_layers_that_go_around_are_put_in_order(tmp_path, layout, at):
    (key, value), *_ = cache(COUNT)
    held = 40 if at == 40 else WINDOW
    around = [np.roll(array[:, COUNT - held :], at % held, axis=1) for array in (key, value)]
    tensors = {f"0.{index}": Tensor("F32", array[np.newaxis]) for index, array in enumerate(around)}
    numbers = {"keep": 0, "max_size": WINDOW, "offset": COUNT, "_idx": at}
    if layout == "0.32":
        for index, name in enumerate(("offset", "keep", "max_size", "_idx"), 2):
            tensors[f"0.{index}"] = Tensor("I32", np.array(numbers[name], np.int32))
    infos = {f"0.0.{index}": str(number) for index, number in enumerate(numbers.values())}
    _safetensors.write(tmp_path / "f", tensors, header(layout, ["RotatingKVCache"], [f"0.{i}" for i in range(2, 6)], infos))
    read = mlx.load_cache(tmp_path / "f")
    assert (read.token_count, read.windows) == (COUNT, [WINDOW])
    assert_same(read.layers, [(key[:, COUNT - held :], value[:, COUNT - held :])])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_session_comes_in_turn_by_turn_and_goes_out(store, tmp_path, layout):
    first, whole = (plain_file(tmp_path / str(count), layout, cache(count)) for count in (70, COUNT))
    assert mlx.import_cache(store, first, "session/s", MODEL, ids(70), "exact") == 70
    assert mlx.import_cache(store, whole, "session/s", MODEL, ids(COUNT), "exact") == 30
    session = store.session("s")
    assert_same(session.prefix().restore(), cache(COUNT))
    assert session.provenance["file"] == str(COUNT)
    with pytest.raises(Conflict):
        mlx.import_cache(store, whole, "session/s", MODEL, ids(COUNT, 2), "exact")
    mlx.export_cache(session.prefix(), tmp_path / "out", {"model": "tiny"}, layout)
    read = mlx.load_cache(tmp_path / "out")
    assert read.tokens == Tokens(ids(COUNT)) and read.metadata["model"] == "tiny"
    assert_same(read.layers, cache(COUNT))
    assert mlx.import_cache(store, tmp_path / "out", "video/again", MODEL, profile="exact") == COUNT


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", [10, 24, 25, COUNT])
def test_sliding_windows_go_out_and_come_back(store, tmp_path, layout, count):
    model = spec("float32", "34" * 32, "sliding", sliding_window=[None, WINDOW, None])
    store.add_model(model)
    layers, held = cache(count), min(count, WINDOW - 1)
    tokens = Tokens(ids(count), [MediaSpan(b"\5" * 32, 3, 5)], np.arange(count) * 2)
    with store.writer("session/s", model, "exact") as writer:
        writer.append(tokens, [layers[0], part(layers, count - held)[1], layers[2]])
    mlx.export_cache(store.session("s").prefix(), tmp_path / "out", layout=layout)
    read = mlx.load_cache(tmp_path / "out")
    assert (read.token_count, read.windows, read.tokens) == (count, [None, WINDOW, None], tokens)
    assert read.layers[1][0].shape[1] == min(count, WINDOW)
    assert_same([read.layers[0]], layers[:1])
    assert_same(part([read.layers[1]], min(count, WINDOW) - held), part(layers, count - held)[1:2])
    assert mlx.import_cache(store, tmp_path / "out", "session/t", model, profile="exact") == count
    assert_same(store.session("t").prefix().restore(tokens=slice(count - held, count)), part(layers, count - held))


def test_bfloat16_stays_as_it_is(store, tmp_path):
    model = spec("bfloat16")
    store.add_model(model)
    layers = [(float32_to_bfloat16(key), float32_to_bfloat16(value)) for key, value in cache(COUNT)]
    write(store, "session/s", ids(COUNT), layers, model)
    mlx.export_cache(store.session("s").prefix(), tmp_path / "out")
    read = mlx.load_cache(tmp_path / "out")
    assert read.dtype == "bfloat16"
    assert_same(read.layers, layers)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda tensors, noted: tensors.pop("1.1"), "no tensor '1.1'"),
        (lambda tensors, noted: tensors.update({"0.0": Tensor("F32", np.zeros((2, 3), np.float32))}), "must be"),
        (lambda tensors, noted: tensors.update({"0.0": Tensor("F32", np.zeros((1, 2, 3, 16), np.float32))}), "room"),
        (lambda tensors, noted: tensors.update({"0.2": Tensor("I32", np.array(9999, np.int32))}), "room"),
        (lambda tensors, noted: tensors.update({"1.2": Tensor("I32", np.array(50, np.int32))}), "different numbers"),
        (lambda tensors, noted: noted.update({"1.1": "QuantizedKVCache"}), "QuantizedKVCache"),
        (lambda tensors, noted: noted.update({"1.1": "RotatingKVCache"}), "go around"),
        (lambda tensors, noted: [noted.pop(f"1.{at}") for at in range(3)], "no cache classes"),
        (lambda tensors, noted: noted.update({"0.reelkv_tokens": "{"}), "cannot be read"),
        (lambda tensors, noted: noted.update({"0.reelkv_tokens": json.dumps({"ids": [1]})}), "another program"),
        (lambda tensors, noted: tensors.update({"0.2": Tensor("I32", np.zeros(3, np.int32))}), "something else"),
    ],
)
def test_files_that_make_no_sense_are_told(tmp_path, change, message):
    tensors, noted = _safetensors.read(plain_file(tmp_path / "good", "0.32", cache(COUNT)))
    change(tensors, noted)
    _safetensors.write(tmp_path / "bad", tensors, noted)
    with pytest.raises(InvalidArgument, match=message):
        mlx.load_cache(tmp_path / "bad")


def test_what_does_not_fit_the_store_is_told(store, tmp_path):
    path = plain_file(tmp_path / "f", "0.32", cache(COUNT))
    with pytest.raises(InvalidArgument, match="which tokens"):
        mlx.import_cache(store, path, "session/s", MODEL)
    with pytest.raises(InvalidArgument, match="99 were given"):
        mlx.import_cache(store, path, "session/s", MODEL, ids(99))
    with pytest.raises(ModelMismatch):
        mlx.import_cache(store, plain_file(tmp_path / "g", "0.32", cache(COUNT, layers=2)), "session/s", MODEL, ids(COUNT))
    write(store, "video/v", ids(COUNT), cache(COUNT))
    with pytest.raises(InvalidArgument, match="layout"):
        mlx.export_cache(store.video("v").prefix(), tmp_path / "h", layout="0.30")


def test_hostile_safetensors_files_are_told(tmp_path):
    good = plain_file(tmp_path / "good", "0.32", cache(4)).read_bytes()
    random = np.random.default_rng(5)
    length = int.from_bytes(good[:8], "little")
    refused = 0
    for case in range(600):
        data = bytearray(good[: random.integers(0, len(good))] if case % 3 == 0 else good)
        for _ in range(random.integers(1, 4)):
            if data:
                data[random.integers(0, min(len(data), 8 + length))] = random.integers(256)
        (tmp_path / "bad").write_bytes(data)
        try:
            mlx.load_cache(tmp_path / "bad")
        except InvalidArgument:
            refused += 1
    assert refused > 400
