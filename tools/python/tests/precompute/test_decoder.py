"""The language model run in chunks comes to what the model itself comes to."""

import pytest
import torch
import transformers as tf

from reelkv.precompute import prefix_inputs
from reelkv.precompute.decoder import take_down
from reelkv.precompute.errors import PrecomputeError
from reelkv.precompute.vision import encode_frames

KINDS = ["qwen2_5_vl", "qwen3_vl", "llava_onevision"]


def empty(model) -> tf.DynamicCache:
    return tf.DynamicCache(config=model.config.get_text_config())


@pytest.fixture(params=KINDS)
def engine(request, engine_of):
    return engine_of(request.param)


@pytest.fixture
def inputs(engine, clip):
    return dict(prefix_inputs(engine.processor, clip))


@torch.inference_mode()
def reference(model, inputs) -> tf.DynamicCache:
    cache = empty(model)
    model(**inputs, past_key_values=cache, use_cache=True)
    return cache


def greatest_difference(one, other) -> float:
    assert one.get_seq_length() == other.get_seq_length()
    return max(
        float((getattr(a, name) - getattr(b, name)).abs().max())
        for a, b in zip(one.layers, other.layers, strict=True)
        for name in ("keys", "values")
    )


@torch.inference_mode()
def test_in_one_chunk_it_is_the_models_own_forward_pass_bit_for_bit(engine, inputs):
    cache = empty(engine.model)
    call = take_down(engine.model, inputs)
    assert list(call.chunks(cache, 4096)) == [range(call.token_count)]
    assert greatest_difference(cache, reference(engine.model, inputs)) == 0


@pytest.mark.parametrize("chunk_tokens", [1, 7, 32])
@torch.inference_mode()
def test_in_chunks_it_is_the_same_but_for_rounding(engine, inputs, chunk_tokens):
    cache = empty(engine.model)
    call = take_down(engine.model, inputs)
    chunks = list(call.chunks(cache, chunk_tokens))
    assert [chunk.start for chunk in chunks] == list(range(0, call.token_count, chunk_tokens))
    assert greatest_difference(cache, reference(engine.model, inputs)) < 1e-5


@torch.inference_mode()
def test_stopped_between_chunks_it_comes_to_the_same_bits(engine, inputs):
    call = take_down(engine.model, inputs)
    whole, parts = empty(engine.model), empty(engine.model)
    list(call.chunks(whole, 8))
    chunks = call.chunks(parts, 8)
    next(chunks), next(chunks)
    again = take_down(engine.model, inputs)
    assert [chunk.start for chunk in again.chunks(parts, 8)][0] == 16
    assert greatest_difference(whole, parts) == 0


@torch.inference_mode()
def test_what_a_model_notes_on_the_way_is_noted(engine_of, clip):
    """Without its rope_deltas, Qwen2.5-VL goes on at the wrong positions."""
    engine = engine_of("qwen2_5_vl")
    inputs = dict(prefix_inputs(engine.processor, clip))
    engine.model.model.rope_deltas = None
    reference(engine.model, inputs)
    expected = engine.model.model.rope_deltas
    engine.model.model.rope_deltas = None
    take_down(engine.model, inputs)
    assert expected is not None and torch.equal(engine.model.model.rope_deltas, expected)


@pytest.mark.parametrize("frames_per_pass", [1, 3, 100])
@torch.inference_mode()
def test_frames_encoded_in_passes_are_the_same_but_for_rounding(engine, inputs, frames_per_pass):
    whole = take_down(engine.model, inputs)
    reached = []
    encoded = encode_frames(engine.model, inputs, 0, frames_per_pass, lambda done, total: reached.append((done, total)))
    if engine.model.config.model_type == "qwen3_vl":  # its frames' features go to several layers: left to the model
        assert encoded is inputs
        return
    parts = take_down(engine.model, encoded)
    assert float((whole.embeddings - parts.embeddings).abs().max()) < 1e-5
    assert (whole.positions is None) == (parts.positions is None)
    assert whole.positions is None or torch.equal(whole.positions, parts.positions)
    groups = 10 if "video_grid_thw" in inputs else 20  # 20 frames; Qwen2.5-VL makes one group of two
    assert reached[-1] == (groups, groups) and len(reached) == -(-groups // frames_per_pass)


@torch.inference_mode()
def test_frames_whose_features_are_not_needed_are_not_encoded(engine_of, clip, monkeypatch):
    engine = engine_of("llava_onevision")
    inputs = dict(prefix_inputs(engine.processor, clip))
    whole = take_down(engine.model, inputs).embeddings
    encoded = []
    own = engine.model.get_video_features
    monkeypatch.setattr(engine.model, "get_video_features", lambda pixels, **named: encoded.append(pixels.shape[1]) or own(pixels, **named))
    parts = take_down(engine.model, encode_frames(engine.model, inputs, 37, 4)).embeddings
    first = int((inputs["input_ids"][0] == engine.model.config.video_token_id).nonzero()[0])
    assert sum(encoded) == 12, "4 features a frame: the first 8 frames have 32, and the ninth begins before 37"
    assert torch.equal(parts[:, first + 32 :], whole[:, first + 32 :])
    assert not parts[:, first : first + 32].any()


@torch.inference_mode()
def test_a_model_whose_frames_see_each_other_is_run_whole():
    """Gemma 3 masks the tokens of a picture so that they see each other; cut in two they could not."""
    torch.manual_seed(0)
    model = tf.Gemma3ForConditionalGeneration(
        tf.Gemma3Config(
            text_config={
                "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
                "head_dim": 16, "layer_types": ["full_attention", "full_attention"],
            },
            vision_config={"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14},
            mm_tokens_per_image=4, image_token_index=60, boi_token_index=61, eoi_token_index=62,
        )
    ).eval()  # fmt: skip
    ids = torch.tensor([[1, 2, 61, 60, 60, 60, 60, 62, 3, 4]])
    inputs = {"input_ids": ids, "pixel_values": torch.randn(1, 3, 28, 28), "token_type_ids": (ids == 60).long(), "attention_mask": torch.ones_like(ids)}
    call = take_down(model, inputs)
    assert not call.can_be_cut
    cache = empty(model)
    assert list(call.chunks(cache, 4)) == [range(10)]
    assert greatest_difference(cache, reference(model, inputs)) == 0


def test_a_cache_that_does_not_end_before_the_chunk_is_refused(engine_of, clip):
    engine = engine_of("llava_onevision")
    with torch.inference_mode():
        call = take_down(engine.model, dict(prefix_inputs(engine.processor, clip)))
    with pytest.raises(ValueError, match="the cache holds 0 tokens, not the 5"):
        call.run(empty(engine.model), range(5, 9))


def test_a_model_that_has_no_language_model_is_refused(engine_of):
    class Other(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.part = torch.nn.Linear(2, 2)

        def get_decoder(self):
            return self.part

        def forward(self, use_cache=True):
            return self.part(torch.zeros(1, 2))

    with pytest.raises(PrecomputeError, match="Other calls its language model in a way that is not known here"):
        take_down(Other(), {})
