"""Tiny video language models of random weights, as folders that transformers loads, and clips to run them on."""

from pathlib import Path

import av
import numpy as np
import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<image>", "<video>",
]  # fmt: skip
TEXT = ["Describe the video. What moves in the street? user assistant system", "Why is that so? one two three four five six"]

TEMPLATE = """\
{%%- for message in messages -%%}
{{ '<|im_start|>' + message['role'] + '\\n' }}
{%%- if message['content'] is string -%%}{{ message['content'] }}
{%%- else -%%}
{%%- for part in message['content'] -%%}{{ '%s' if part['type'] == 'video' else part['text'] }}{%%- endfor -%%}
{%%- endif -%%}
{{ '<|im_end|>\\n' }}
{%%- endfor -%%}
{%%- if add_generation_prompt -%%}{{ '<|im_start|>assistant\\n' }}{%%- endif -%%}
"""

TEXT_SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
}  # fmt: skip
PIXELS = {"shortest_edge": 56 * 56, "longest_edge": 56 * 56}


def tokenizer() -> tf.PreTrainedTokenizerFast:
    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokens.train_from_iterator(TEXT, trainer)
    return tf.PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def save(folder: Path, kind: str, seed: int = 0) -> Path:
    """Makes the folder of a tiny model: "qwen2_5_vl", "qwen3_vl" or "llava_onevision"."""
    torch.manual_seed(seed)
    tokens = tokenizer()
    model, processor = {"qwen2_5_vl": _qwen2_5, "qwen3_vl": _qwen3, "llava_onevision": _llava}[kind](tokens)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _ids(tokens, **names: str) -> dict[str, int]:
    return {field: tokens.convert_tokens_to_ids(token) for field, token in names.items()}


def _qwen_ids(tokens) -> dict[str, int]:
    return _ids(
        tokens, image_token_id="<|image_pad|>", video_token_id="<|video_pad|>", vision_start_token_id="<|vision_start|>", vision_end_token_id="<|vision_end|>"
    )  # fmt: skip


def _qwen2_5(tokens):
    config = tf.Qwen2_5_VLConfig(
        text_config={
            **TEXT_SIZES, "vocab_size": len(tokens), "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64, "fullatt_block_indexes": [1], "window_size": 28,
        },
        **_qwen_ids(tokens),
    )  # fmt: skip
    processor = tf.Qwen2_5_VLProcessor(
        image_processor=tf.Qwen2VLImageProcessor(size=PIXELS),
        tokenizer=tokens,
        video_processor=tf.Qwen2VLVideoProcessor(size=PIXELS, cap_pixels_per_frame=False),
        chat_template=TEMPLATE % "<|vision_start|><|video_pad|><|vision_end|>",
    )
    return tf.Qwen2_5_VLForConditionalGeneration(config), processor


def _qwen3(tokens):
    config = tf.Qwen3VLConfig(
        text_config={
            **TEXT_SIZES, "vocab_size": len(tokens), "head_dim": 16,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 10000.0, "mrope_interleaved": True},
        },
        vision_config={
            "depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64, "patch_size": 14, "deepstack_visual_indexes": [0, 1],
            "num_position_embeddings": 64,
        },
        **_qwen_ids(tokens),
    )  # fmt: skip
    processor = tf.Qwen3VLProcessor(
        image_processor=tf.Qwen2VLImageProcessor(size=PIXELS, patch_size=14),
        tokenizer=tokens,
        video_processor=tf.Qwen3VLVideoProcessor(size={"shortest_edge": 28**2 * 8, "longest_edge": 56**2 * 16}, patch_size=14),
        chat_template=TEMPLATE % "<|vision_start|><|video_pad|><|vision_end|>",
    )
    return tf.Qwen3VLForConditionalGeneration(config), processor


def _llava(tokens):
    config = tf.LlavaOnevisionConfig(
        vision_config=tf.SiglipVisionConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14, vision_use_head=False
        ),
        text_config=tf.Qwen2Config(**TEXT_SIZES, vocab_size=len(tokens)),
        **_ids(tokens, image_token_index="<image>", video_token_index="<video>"),
    )
    size = {"height": 56, "width": 56}
    processor = tf.LlavaOnevisionProcessor(
        image_processor=tf.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=[[56, 56]]),
        tokenizer=tokens,
        video_processor=tf.LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE % "<video>",
    )
    return tf.LlavaOnevisionForConditionalGeneration(config), processor


def write_clip(path: Path, frames: int = 40, fps: int = 10, size: tuple[int, int] = (96, 64), seed: int = 0) -> Path:
    """A clip of noise over which a bright square moves; frame i's mean brightness rises with i."""
    width, height = size
    random = np.random.default_rng(seed)
    background = random.integers(0, 80, (height, width, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 4_000_000
        for index in range(frames):
            pixels = background + np.uint8(index)
            x = index * 2 % (width - 16)
            pixels[16:32, x : x + 16] = 255
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
