"""Encodes a clip's frames some at a time, so that a long clip's activations fit into memory.

Only for models whose frames do not see each other before the language model; the others encode all frames at once, as they do anyway.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def encode_frames(
    model: Any,
    inputs: dict[str, Any],
    first_feature: int,
    frames_per_pass: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Arguments for the model's forward pass in place of a video's pixels: its features.

    Args:
        inputs: the processor's, of one video.
        first_feature: features before this one are not needed and come as zeros.
        frames_per_pass: frames, or groups of frames where the model makes one of several, that are encoded at once.
        progress: called with how many frames or groups have been encoded, and of how many.

    Returns:
        The inputs with features, or as they were where the model's class is not known here.
    """
    passes = _PASSES.get(model.config.model_type)
    pixels = inputs.get("pixel_values_videos")
    if passes is None or pixels is None or "mm_encoder_outputs" not in inspect.signature(model.forward).parameters:
        return inputs
    if inputs.get("pixel_values") is not None:
        return inputs  # a chat with pictures beside the video
    import torch
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    parts: list[torch.Tensor | int] = []  # an int: so many features are not needed
    planned = list(passes(model, inputs, pixels, frames_per_pass))
    total, done, end = sum(count for count, _, _ in planned), 0, 0
    for count, features, encode in planned:
        end += features
        parts.append(encode() if end > first_feature else features)
        done += count
        progress(done, total)
    encoded = [part for part in parts if not isinstance(part, int)]
    width = encoded[0].shape[-1] if encoded else model.config.get_text_config().hidden_size
    like = encoded[0] if encoded else model.get_input_embeddings().weight
    joined = torch.cat([like.new_zeros(part, width) if isinstance(part, int) else part for part in parts])
    features = BaseModelOutputWithPooling(pooler_output=(joined,) if model.config.model_type in _BY_GRID else joined[None])
    rest = {name: value for name, value in inputs.items() if name != "pixel_values_videos"}
    return rest | {"mm_encoder_outputs": {"video": features}}


# A pass: frames or groups of frames in it, features that it gives, and what computes them, `[features, width]`.
_Pass = tuple[int, int, "Callable[[], torch.Tensor]"]


def _passes_by_grid(model: Any, inputs: dict[str, Any], pixels: torch.Tensor, per_pass: int) -> Iterator[_Pass]:
    """Qwen2-VL's way: pixels are rows of patches, group after group of frames; 4 patches make a feature."""
    grid = inputs["video_grid_thw"]
    if len(grid) != 1:
        raise ValueError("one video is expected")
    groups, height, width = (int(side) for side in grid[0])
    rows = height * width
    merged = model.config.vision_config.spatial_merge_size**2
    for first in range(0, groups, per_pass):
        count = min(per_pass, groups - first)

        def encode(first: int = first, count: int = count) -> torch.Tensor:
            part = grid.clone()
            part[0, 0] = count
            (features,) = model.get_video_features(pixels[first * rows : (first + count) * rows], part).pooler_output
            return features

        yield count, count * rows // merged, encode


def _passes_by_frame(model: Any, inputs: dict[str, Any], pixels: torch.Tensor, per_pass: int) -> Iterator[_Pass]:
    """LLaVA-OneVision's way: each frame by itself, and one feature that ends the video."""
    frames = pixels.shape[1]
    # The inputs say how many features all frames have; each has as many as the others.
    placeholders = int((inputs["input_ids"] == model.config.video_token_id).sum())
    each = (placeholders - 1) // frames
    for first in range(0, frames, per_pass):
        count = min(per_pass, frames - first)
        end = 1 if first + count == frames else 0

        def encode(first: int = first, count: int = count, end: int = end) -> torch.Tensor:
            features = model.get_video_features(pixels[:, first : first + count]).pooler_output[0]
            return features[: count * each + end]

        yield count, count * each + end, encode


_BY_GRID = {"qwen2_vl", "qwen2_5_vl"}
_PASSES: dict[str, Callable[..., Iterator[_Pass]]] = {
    "llava_onevision": _passes_by_frame,
    **dict.fromkeys(_BY_GRID, _passes_by_grid),
}
