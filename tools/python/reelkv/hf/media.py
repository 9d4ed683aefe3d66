"""Which images and videos a prompt holds: identity from pixel values and settings, and where their placeholders stand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..errors import InvalidArgument
from ..tokens import MediaSpan
from .tensors import bytes_of


@dataclass(frozen=True)
class Kind:
    """A kind of media, as processors and configs name its parts."""

    name: str
    pixels: str
    """The input that holds the pixel values of all media of the kind."""
    per_medium: tuple[str, ...]
    """Inputs with one entry for each."""
    grid: str
    """Of these the one that says how many rows of pixel values each has: their product."""
    token_ids: tuple[str, ...]
    """Where a config has the placeholder's id."""


KINDS = (
    Kind(
        "image",
        "pixel_values",
        ("image_grid_thw", "image_sizes", "pixel_attention_mask", "pixel_mask"),
        "image_grid_thw",
        ("image_token_id", "image_token_index"),
    ),
    Kind(
        "video",
        "pixel_values_videos",
        ("video_grid_thw", "image_sizes_videos", "second_per_grid_ts"),
        "video_grid_thw",
        ("video_token_id", "video_token_index"),
    ),
)
SETTINGS = ("vision_feature_layer", "vision_feature_select_strategy", "vision_aspect_ratio")
"""Inputs that say how all media are encoded."""
IMAGE_COUNTS = "batch_num_images"
"""LLaVA-OneVision cuts an image into patches only where it is a prompt's only one."""
INPUTS = frozenset((*(name for kind in KINDS for name in (kind.pixels, *kind.per_medium)), *SETTINGS, IMAGE_COUNTS))
"""Inputs that this module knows."""


@dataclass
class Medium:
    """An image or video of a prompt, or all of a kind where they cannot be told apart."""

    kind: Kind
    index: int
    """Among those of its kind."""
    rows: slice
    """Its rows of the pixel values."""
    token_count: int | None
    """Placeholders that stand for it; None where that is not known."""
    digest: bytes
    places: list[int] = field(default_factory=list)
    """Indices of its placeholders among the tokens."""


class MediaInputs:
    """The media of one prompt."""

    def __init__(self, inputs: Mapping[str, Any], config: Any, processor_settings: str):
        self._inputs = inputs
        self._config = config
        self._processor_settings = processor_settings
        self.media: list[Medium] = []

    def find(self, ids: Sequence[int]) -> list[MediaSpan]:
        """The spans of a prompt's placeholders. Raises InvalidArgument where pixels and placeholders do not belong together."""
        spans: list[MediaSpan] = []
        for kind in KINDS:
            token_id = self._token_id(kind)
            places = [index for index, id in enumerate(ids) if id == token_id] if token_id is not None else []
            media = self._media_of(kind)
            if places and not media:
                raise InvalidArgument(
                    f"the prompt has {len(places)} {kind.name} tokens, but no {kind.pixels} to tell which {kind.name}: pass all that the "
                    "processor returned, for the whole conversation"
                )
            if media and not places:
                raise InvalidArgument(f"there are {kind.pixels}, but the prompt has no {kind.name} tokens")
            if media:
                spans += self._place(media, places)
        return sorted(spans, key=lambda span: span.first_token)

    def without_first(self, count: int) -> dict[str, Any]:
        """The media inputs but for those media whose placeholders all stand among the first `count` tokens."""
        kept = {name: self._inputs[name] for name in (*SETTINGS, IMAGE_COUNTS) if self._inputs.get(name) is not None}
        for kind in KINDS:
            left = [medium for medium in self.media if medium.kind is kind and medium.places[-1] >= count]
            if not left:
                continue
            pixels = self._inputs[kind.pixels]
            kept[kind.pixels] = pixels[left[0].rows.start : left[-1].rows.stop]
            for name in kind.per_medium:
                if (values := self._inputs.get(name)) is not None:
                    kept[name] = values[left[0].index :] if len(left) < len(values) else values
        if not any(kind.pixels in kept for kind in KINDS):
            kept.pop(IMAGE_COUNTS, None)
        return kept

    # Identity

    def _media_of(self, kind: Kind) -> list[Medium]:
        pixels = self._inputs.get(kind.pixels)
        if pixels is None:
            return []
        if not isinstance(pixels, torch.Tensor):
            raise InvalidArgument(f"{kind.pixels} must be a tensor, not {type(pixels).__name__}: call the processor with return_tensors='pt'")
        parts = {name: self._inputs[name] for name in kind.per_medium if self._inputs.get(name) is not None}
        rows = _rows(kind, pixels, parts)
        if rows is None:  # all together, which is right, if less is shared
            return [Medium(kind, 0, slice(0, len(pixels)), None, self._digest(kind, pixels, parts))]
        counts = self._token_counts(kind, parts)
        return [
            Medium(
                kind,
                index,
                part,
                counts[index] if counts is not None else None,
                self._digest(kind, pixels[part], {name: values[index : index + 1] for name, values in parts.items()}),
            )
            for index, part in enumerate(rows)
        ]

    def _digest(self, kind: Kind, pixels: Any, parts: Mapping[str, Any]) -> bytes:
        """32 bytes over the pixel values, what the processor says of them, and how the model is told to encode them."""
        digest = hashlib.blake2b(b"reelkv.hf media 1\n", digest_size=32)
        settings = {name: _plain(self._inputs[name]) for name in SETTINGS if self._inputs.get(name) is not None}
        if kind.name == "image" and self._inputs.get(IMAGE_COUNTS) is not None:
            settings["alone"] = torch.as_tensor(self._inputs[IMAGE_COUNTS]).flatten().tolist() == [1]
        for text in (kind.name, json.dumps(settings, sort_keys=True), self._processor_settings):
            digest.update(f"{len(text.encode())} {text}\n".encode())
        for name, values in sorted({**parts, kind.pixels: pixels}.items()):
            tensor = values if isinstance(values, torch.Tensor) else torch.as_tensor(values)
            data = bytes_of(tensor)
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {len(data)}\n".encode())
            digest.update(data)
        return digest.digest()

    # Placeholders

    def _token_id(self, kind: Kind) -> int | None:
        for name in kind.token_ids:
            value = getattr(self._config, name, None)
            if isinstance(value, int):
                return value
        return None

    def _token_counts(self, kind: Kind, parts: Mapping[str, Any]) -> list[int] | None:
        """Placeholders of each medium, where grid and patch merging tell."""
        merge = getattr(getattr(self._config, "vision_config", None), "spatial_merge_size", None)
        if kind.grid not in parts or not isinstance(merge, int):
            return None
        return [int(torch.as_tensor(grid).prod()) // merge**2 for grid in parts[kind.grid]]

    def _place(self, media: list[Medium], places: list[int]) -> list[MediaSpan]:
        runs = _runs(places)
        if sum(medium.token_count or 0 for medium in media) != len(places):
            if len(runs) == len(media):
                for medium, run in zip(media, runs):
                    medium.token_count = len(run)
            else:
                media = [self._joined(media, len(places))]
        self.media += media
        spans, at = [], 0
        for medium in media:
            count = medium.token_count or 0
            medium.places = places[at : at + count]
            at += count
            offset = 0
            for run in _runs(medium.places):
                spans.append(MediaSpan(medium.digest, run[0], len(run), offset))
                offset += len(run)
        return spans

    def _joined(self, media: list[Medium], token_count: int) -> Medium:
        """All media of a kind as one, where nothing tells which placeholder is whose."""
        digest = hashlib.blake2b(b"reelkv.hf joined media 1\n" + b"".join(medium.digest for medium in media), digest_size=32)
        rows = slice(media[0].rows.start, media[-1].rows.stop)
        return Medium(media[0].kind, 0, rows, token_count, digest.digest())


def processor_settings(processor: Any) -> str:
    """What a processor says of itself, as text that is the same for the same settings; "" for None."""
    if processor is None:
        return ""
    parts: list[Any] = [getattr(processor, name, None) for name in ("image_processor", "video_processor")]
    found = [part for part in parts if hasattr(part, "to_dict")] or [processor]
    if not all(hasattr(part, "to_dict") for part in found):
        raise InvalidArgument(f"{type(processor).__name__} is no processor of transformers: it has no to_dict")
    described = [{key: value for key, value in part.to_dict().items() if not key.endswith("_version")} for part in found]
    return json.dumps(described, sort_keys=True, default=str)


def _rows(kind: Kind, pixels: Any, parts: Mapping[str, Any]) -> list[slice] | None:
    """Each medium's rows of the pixel values; None where that cannot be told."""
    if kind.grid in parts:
        counts = [int(torch.as_tensor(grid).prod()) for grid in parts[kind.grid]]
    else:
        counts = [1] * len(pixels)
    fits = sum(counts) == len(pixels) and all(len(values) == len(counts) for values in parts.values())
    if not fits or not counts:
        return None
    ends = [sum(counts[: index + 1]) for index in range(len(counts))]
    return [slice(end - count, end) for count, end in zip(counts, ends)]


def _runs(places: Sequence[int]) -> list[list[int]]:
    """Consecutive indices together."""
    runs: list[list[int]] = []
    for place in places:
        if runs and runs[-1][-1] + 1 == place:
            runs[-1].append(place)
        else:
            runs.append([place])
    return runs


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, torch.Tensor) else value
