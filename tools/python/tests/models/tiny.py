"""Models of a few layers with random weights, and prompts for them: every kind of cache and of media that the adapter knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

transformers.logging.set_verbosity_error()
torch.set_num_threads(1)  # the same sums in the same order in every process, however many cores are free

VOCABULARY = 140
IMAGE, VIDEO, VISION_START, VISION_END = 150, 151, 152, 153
WINDOW = 24
"""Of Gemma's sliding layers: shorter than every prompt here."""
TEXT = dict(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=200,
    bos_token_id=0,
    eos_token_id=None,
    pad_token_id=0,
)


def qwen() -> Any:
    config = Qwen2_5_VLConfig(
        text_config=dict(TEXT, rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}),
        vision_config=dict(
            depth=2,
            hidden_size=32,
            intermediate_size=64,
            num_heads=2,
            patch_size=4,
            spatial_merge_size=2,
            temporal_patch_size=2,
            out_hidden_size=64,
            window_size=16,
            fullatt_block_indexes=[1],
            tokens_per_second=2,
        ),
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def llava() -> Any:
    config = LlavaOnevisionConfig(
        text_config=dict(TEXT, model_type="qwen2"),
        vision_config=dict(
            model_type="siglip_vision_model",
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=16,
            patch_size=4,
            vision_use_head=False,
        ),
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=[[16, 16], [16, 32], [32, 16]],
        vision_feature_layer=-1,
    )
    return LlavaOnevisionForConditionalGeneration(config)


def gemma() -> Any:
    return Gemma3ForCausalLM(Gemma3TextConfig(**dict(TEXT, num_hidden_layers=6, head_dim=16, sliding_window=WINDOW)))


def build(make: Callable[[], Any], dtype: torch.dtype = torch.float32) -> Any:
    """A model with weights that are the same every time."""
    torch.manual_seed(1)
    return make().to(dtype).eval()


def text(seed: int, count: int) -> list[int]:
    return torch.randint(2, VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def pixels(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@dataclass
class Prompts:
    """Ids and media of a conversation, put together piece by piece, as a processor returns it."""

    ids: list[int]
    media: dict[str, Any]

    def inputs(self) -> dict[str, Any]:
        ids = torch.tensor([self.ids])
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **self.media}
        if "image_grid_thw" in given or "video_grid_thw" in given:
            kinds = torch.zeros_like(ids, dtype=torch.int)
            kinds[ids == IMAGE], kinds[ids == VIDEO] = 1, 2
            given["mm_token_type_ids"] = kinds
        return given

    def then(self, ids: list[int], media: dict[str, Any] | None = None) -> Prompts:
        """The conversation so far, and more."""
        joined = dict(self.media)
        for name, values in (media or {}).items():
            before = joined.get(name)
            joined[name] = values if before is None else torch.cat([before, values]) if isinstance(values, torch.Tensor) else before + values
        return Prompts(self.ids + ids, joined)


def qwen_image(seed: int, height: int = 4, width: int = 8) -> tuple[list[int], dict[str, Any]]:
    """Placeholders between their markers, and the image behind them."""
    count = height * width // 4
    grid = torch.tensor([[1, height, width]])
    return [VISION_START, *[IMAGE] * count, VISION_END], {
        "pixel_values": pixels(seed, height * width, 3 * 2 * 4 * 4),
        "image_grid_thw": grid,
    }


def qwen_video(seed: int, frames: int = 6, second_per_grid: float = 1.0) -> tuple[list[int], dict[str, Any]]:
    return [VISION_START, *[VIDEO] * (frames * 4), VISION_END], {
        "pixel_values_videos": pixels(seed, frames * 16, 3 * 2 * 4 * 4),
        "video_grid_thw": torch.tensor([[frames, 4, 4]]),
        "second_per_grid_ts": [second_per_grid],
    }


def llava_image(seed: int) -> tuple[list[int], dict[str, Any]]:
    return [IMAGE] * 52, {"pixel_values": pixels(seed, 1, 3, 3, 16, 16), "image_sizes": torch.tensor([[16, 32]])}


def llava_video(seed: int) -> tuple[list[int], dict[str, Any]]:
    return [VIDEO] * 17, {"pixel_values_videos": pixels(seed, 1, 4, 3, 16, 16)}


def conversation(medium: tuple[list[int], dict[str, Any]] | None) -> Prompts:
    """A first turn: text, an image or video, and a question."""
    start = Prompts(text(10, 70), {})
    return (start if medium is None else start.then(*medium)).then(text(11, 30))


CASES: dict[str, tuple[Callable[[], Any], Callable[[], Prompts]]] = {
    "qwen2.5-vl-image": (qwen, lambda: conversation(qwen_image(1))),
    "qwen2.5-vl-video": (qwen, lambda: conversation(qwen_video(1))),
    "llava-onevision-image": (llava, lambda: conversation(llava_image(1))),
    "llava-onevision-video": (llava, lambda: conversation(llava_video(1))),
    "gemma3": (gemma, lambda: conversation(None)),
}
"""A model and the first turn of a conversation with it."""
