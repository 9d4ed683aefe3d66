"""Caches of seeded random values for a small model: what a prefill would hand over."""

from __future__ import annotations

import numpy as np

from reelkv import Model, Store, Tokens, Writer

HEADS, KEY_DIM, VALUE_DIM, LAYERS = 2, 16, 8, 3


def spec(dtype: str = "float32", fingerprint: str = "12" * 32, name: str | None = None, **changes) -> Model:
    fields = {
        "layers": LAYERS, "kv_heads": HEADS, "key_dim": KEY_DIM, "value_dim": VALUE_DIM, "dtype": dtype, "rope": {"theta": 10000}
    }  # fmt: skip
    return Model.from_spec(fields | changes, name=name or f"small-{dtype}", fingerprint=fingerprint)


MODEL = spec()


def cache(tokens: int, seed: int = 1, layers: int = LAYERS) -> list[tuple[np.ndarray, np.ndarray]]:
    """float32 pairs (key, value) `[heads, tokens, dim]`; a longer one begins with the same values."""
    made = []
    for layer in range(layers):
        random = np.random.default_rng([seed, layer])
        values = random.standard_normal((tokens, HEADS, KEY_DIM + VALUE_DIM)).astype(np.float32)
        whole = np.ascontiguousarray(values.transpose(1, 0, 2))
        made.append((whole[..., :KEY_DIM], whole[..., KEY_DIM:]))
    return made


def part(layers, start: int, stop: int | None = None):
    return [(key[:, start:stop], value[:, start:stop]) for key, value in layers]


def ids(count: int, seed: int = 1) -> list[int]:
    return np.random.default_rng(seed).integers(0, 30_000, count).tolist()


def write(store: Store, sequence: str, tokens, layers, model: Model = MODEL, profile: str = "exact", chunk: int = 50, **options) -> None:
    """Writes a sequence in pieces, from where the writer starts."""
    finish = {name: options.pop(name) for name in ("engine_state", "frames", "provenance", "pinned") if name in options}
    tokens = Tokens.of(tokens)
    with store.writer(sequence, model, profile, **options) as writer:
        append(writer, tokens, layers, writer.start_count, chunk)
        writer.finish(**finish)


def append(writer: Writer, tokens: Tokens, layers, start: int, chunk: int = 50) -> None:
    for begin in range(start, len(tokens), chunk):
        end = min(begin + chunk, len(tokens))
        writer.append(tokens[begin:end], part(layers, begin, end))


def assert_same(restored, layers) -> None:
    assert len(restored) == len(layers)
    for (key, value), (expected_key, expected_value) in zip(restored, layers):
        assert np.array_equal(key, expected_key)
        assert np.array_equal(value, expected_value)
