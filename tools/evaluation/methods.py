"""What is compared: profiles, each through a store of its own, and other ways to quantize the same cache."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import torch

from baselines import ggml, kivi, quanto, vidkv
from baselines.scheme import Scheme

from .model import Cached, Layers
from .stored import as_tokens, described, round_trip

BASELINES: dict[str, Scheme] = {
    "VidKV 2/2": vidkv.two_bits_each,
    "VidKV 1.5/1.58": vidkv.mixed,
    "KIVI 2": kivi.two_bits_each,
    "quanto 2": quanto.quantized_cache(2),
    "quanto 4": quanto.quantized_cache(4),
    "q4_0": ggml.q4_0,
    "q8_0": ggml.q8_0,
}

GROUP_OF_CHANNELS = 32
"""What several of them cut heads into."""


@dataclass(frozen=True)
class Outcome:
    """A cache that was approximated, and what that takes."""

    layers: Layers
    bits: float
    """Per element, metadata included; of a profile also index and files."""
    details: dict[str, float]


class Method(Protocol):
    name: str
    is_profile: bool

    def approximate(self, cached: Cached) -> Outcome: ...


@dataclass(frozen=True)
class Profile:
    name: str
    is_profile = True

    def approximate(self, cached: Cached) -> Outcome:
        layers = [tuple(x.to(cached.model.element_type) for x in pair) for pair in cached.layers]
        with TemporaryDirectory(prefix="reelkv-evaluation-") as folder:
            stored = round_trip(described(cached.model), as_tokens(cached.prefix), layers, self.name, Path(folder) / "store")
        return Outcome(stored.layers, stored.bits, {"page_bits": stored.page_bits, "tail_bits": stored.tail_bits})


@dataclass(frozen=True)
class Baseline:
    """Its result is rounded to the model's element type, as an engine would hold it."""

    name: str
    is_profile = False

    @torch.inference_mode()
    def approximate(self, cached: Cached) -> Outcome:
        layers, bit_count = [], 0
        for key, value in cached.layers:
            if key.shape[2] % GROUP_OF_CHANNELS or value.shape[2] % GROUP_OF_CHANNELS:
                raise ValueError(
                    f"heads of {key.shape[2]} channels do not divide into groups of {GROUP_OF_CHANNELS}, as {self.name} does; "
                    "choose others with --baselines, or none"
                )
            result = BASELINES[self.name](key, value)
            layers.append(tuple(x.to(cached.model.element_type).float() for x in (result.key, result.value)))
            bit_count += result.bit_count
        return Outcome(layers, bit_count / cached.element_count, {})
