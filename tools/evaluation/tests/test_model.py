import pytest
import tiny
import torch
from transformers import MistralConfig, MistralForCausalLM

from evaluation.metrics import attention
from evaluation.model import PLACEHOLDER, EvaluatedModel, Media, Prefix

IDS = torch.randint(0, tiny.VOCABULARY, (80,), generator=torch.Generator().manual_seed(2)).tolist()


def test_going_on_from_the_cache_is_like_reading_on(tmp_path):
    model = EvaluatedModel(tiny.save(tmp_path, dtype=torch.float32))
    cached = model.prefill(Prefix(IDS[:64]))
    whole = model.prefill(Prefix(IDS[:1]))
    expected = model.run(IDS[1:], whole.with_layers(whole.layers))[63:]
    assert torch.allclose(cached.follow(IDS[64:]).logits, expected, atol=1e-4)


def test_a_cache_can_be_used_again_and_replaced(tiny_model):
    cached = tiny_model.prefill(Prefix(IDS[:64]))
    first = cached.follow(IDS[64:])
    other = cached.follow(IDS[64:], [(torch.zeros_like(key), value) for key, value in cached.layers])
    assert not torch.allclose(other.logits, first.logits)
    assert torch.equal(cached.follow(IDS[64:]).logits, first.logits)
    assert cached.layers[0][0].shape == (2, 64, 64)


def test_caches_are_of_the_checkpoints_type(tiny_model):
    key, value = tiny_model.prefill(Prefix(IDS)).layers[1]
    assert tiny_model.element_type == torch.bfloat16 and torch.equal(key, key.bfloat16().float())


def test_recorded_queries_are_what_the_model_asks_with(tiny_model):
    """Attention computed from them is what enters the layer's last projection."""
    cached = tiny_model.prefill(Prefix(IDS[:64]))
    entered = []
    layer = tiny_model._model.model.layers[1].self_attn
    hook = layer.o_proj.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    cache = cached.with_layers(cached.layers)
    with torch.inference_mode():
        tiny_model.run(IDS[64:65], cache)
    hook.remove()
    queries = cached.follow(IDS[64:65]).queries[1]
    output = attention(queries, cache.layers[1].keys[0], cache.layers[1].values[0])
    assert torch.allclose(output.transpose(0, 1).flatten(1), entered[0][0], atol=1e-5)


def test_media_stand_where_their_placeholders_are(tiny_model):
    embeddings = tiny_model.embedding[IDS[4:20]]
    with_media = tiny_model.prefill(Prefix(IDS[:4] + [PLACEHOLDER] * 16 + IDS[20:30], Media("0" * 64, 4, embeddings)))
    assert torch.equal(with_media.layers[1][0], tiny_model.prefill(Prefix(IDS[:30])).layers[1][0])


def test_a_window_smaller_than_the_prefix_is_told(tmp_path):
    folder = tiny.save(tmp_path)
    config = MistralConfig(**tiny.SHAPE, sliding_window=16)
    MistralForCausalLM(config).save_pretrained(folder)
    with pytest.raises(ValueError, match="choose a shorter --prefix"):
        EvaluatedModel(folder).prefill(Prefix(IDS))


def test_a_folder_without_a_model_is_told(tmp_path):
    with pytest.raises(ValueError, match="no config.json"):
        EvaluatedModel(tmp_path)
