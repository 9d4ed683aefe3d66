"""Tensors like those that `reelkv-bench` stores: 28 layers of 4 heads of 128 channels, bfloat16 as 16-bit words."""

import numpy as np

LAYERS, HEADS, DIM = 28, 4, 128


def cache(tokens: int, seed: int = 1) -> dict[str, np.ndarray]:
    """`layers.N.key` and `.value`, `[1, heads, tokens, dim]` each: channels of their own mean and
    scale, some of the keys' much larger than others, and tokens that correlate by 0.7."""
    random = np.random.default_rng(seed)
    tensors = {}
    for layer in range(LAYERS):
        for kind in ("key", "value"):
            scale = 0.5 + np.abs(random.standard_normal((HEADS, 1, DIM), np.float32))
            if kind == "key":
                scale[:, :, layer % 32 :: 32] *= 8
            mean = random.standard_normal((HEADS, 1, DIM), np.float32) * scale
            state = random.standard_normal((HEADS, tokens, DIM), np.float32)
            for token in range(1, tokens):
                state[:, token] = 0.7 * state[:, token - 1] + 0.714 * state[:, token]
            values = mean + scale * state
            tensors[f"layers.{layer}.{kind}"] = (values.view(np.uint32) >> 16).astype(np.uint16)[np.newaxis]
    return tensors


def floats(words: np.ndarray) -> np.ndarray:
    return (words.astype(np.uint32) << 16).view(np.float32)
