"""Profiles, measured by what comes back from a store and by what its folder takes."""

from dataclasses import dataclass
from pathlib import Path

import reelkv

from .model import EvaluatedModel, Layers, Prefix

PROFILES = (
    "exact",
    "int8",
    "int4",
    "kivi-2",
    "vidkv-2-2",
    "vidkv-1.5-2",
    "vidkv-1.25-2",
    "vidkv-2-1.58",
    "vidkv-1.75-1.66",
    "vidkv-1.5-1.66",
    "vidkv-1.5-1.58",
    "vidkv-1.25-1.58",
    "vidkv-1-1",
)


@dataclass(frozen=True)
class Stored:
    """A cache as it comes out of a store, and what the store takes, in bits per element of the cache."""

    layers: Layers
    bits: float
    """Every file in the store's folder, as `reelkv stats` counts them."""
    page_bits: float
    """Images of full pages."""
    tail_bits: float
    """Images of the tokens after the last full page, which are exact."""


def round_trip(model: reelkv.Model, tokens: reelkv.Tokens, layers: list[tuple], profile: str, folder: Path) -> Stored:
    """A cache through a new store in `folder`. `layers` are tensors of the model's element type, `[heads, tokens, dim]`."""
    with reelkv.Store.create(folder) as store:
        store.add_model(model)
        with store.writer("video/evaluated", model, profile=profile) as writer:
            writer.append(tokens, layers)
        match = store.longest_prefix(tokens, model, counted=False)
        if match.token_count != len(tokens):
            raise RuntimeError(f"{profile}: {len(tokens)} tokens were written, {match.token_count} are found")
        restored = [(key.float(), value.float()) for key, value in match.restore(as_torch=True, progress=False)]
    with reelkv.Store(folder, read_only=True) as store:
        statistics = store.statistics()  # with what closing it wrote
    element_count = sum(key.numel() + value.numel() for key, value in layers)
    images = {row["profile"]: row["stored_bytes"] for row in statistics["profiles"]}
    tail = sum(count for name, count in images.items() if name != profile)
    byte_counts = (statistics["stored_bytes"], images.get(profile, 0), tail)
    return Stored(restored, *(8 * count / element_count for count in byte_counts))


def described(model: EvaluatedModel) -> reelkv.Model:
    return reelkv.Model.from_hf_config(model.config, weights=model.weights, dtype=model.element_type, progress=False)


def as_tokens(prefix: Prefix) -> reelkv.Tokens:
    if prefix.media is None:
        return reelkv.Tokens(prefix.ids)
    span = reelkv.MediaSpan(prefix.media.digest, prefix.media.first_token, prefix.media.embeddings.shape[0])
    return reelkv.Tokens(prefix.ids, media=[span])
