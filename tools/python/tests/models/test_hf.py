"""What the adapter does with prompts, sessions and media, on tiny models."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from transformers import DynamicCache, StaticCache

import reelkv
from reelkv import Conflict, InvalidArgument, Store
from reelkv.hf import Cache, NotSaved, cache_layers, state_fingerprint

from . import tiny
from .worker import GREEDY

MODELS = {make.__name__: make for make in (tiny.qwen, tiny.llava, tiny.gemma)}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return tiny.build(MODELS[request.param])


@pytest.fixture(scope="module")
def qwen():
    return tiny.build(tiny.qwen)


@pytest.fixture
def store(library, tmp_path):
    with Store.create(tmp_path / "store", page_tokens=32) as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def first_turn(model) -> tiny.Prompts:
    media = {"qwen2_5_vl": tiny.qwen_video, "llava_onevision": tiny.llava_image}.get(model.config.model_type)
    return tiny.conversation(media(1) if media else None)


def prefilled(model, prompt: tiny.Prompts):
    past = DynamicCache(config=model.config)
    model(**prompt.inputs(), past_key_values=past)
    return past


# Turn by turn


def test_turns_are_reused_and_only_new_tokens_are_saved(store, model):
    with Cache(store, model, profile="exact") as kv:
        prompt = first_turn(model)
        for turn in range(3):
            inputs = prompt.inputs()
            output = kv.generate(**inputs, session="alice", max_new_tokens=7, min_new_tokens=7, **GREEDY)
            count = len(prompt.ids)
            assert kv.last_match.token_count == (0 if turn == 0 else before)
            session = store.session("alice")
            assert session.token_count == count + 6
            before = session.token_count
            # the same words as without a store: the model sees the same numbers, whatever it had to compute
            alone = model.generate(**inputs, max_new_tokens=7, min_new_tokens=7, **GREEDY)
            assert torch.equal(output, alone)
            prompt = tiny.Prompts(output[0].tolist(), prompt.media).then(tiny.text(20 + turn, 15))
        assert [found.first_token for found in session.turns][1:] != [] and len(session.turns) == 3
        assert store.verify().is_sound


def test_new_media_in_a_later_turn(store, model):
    if model.config.model_type == "gemma3_text":
        pytest.skip("a model of text alone")
    with Cache(store, model, profile="exact") as kv:
        prompt = first_turn(model)
        output = kv.generate(**prompt.inputs(), session="alice", max_new_tokens=5, min_new_tokens=5, **GREEDY)
        ids, media = (tiny.qwen_image if model.config.model_type == "qwen2_5_vl" else tiny.llava_video)(7)
        prompt = tiny.Prompts(output[0].tolist(), prompt.media).then(tiny.text(3, 4)).then(ids, media).then(tiny.text(4, 12))
        output = kv.generate(**prompt.inputs(), session="alice", layerwise=True, max_new_tokens=8, min_new_tokens=8, **GREEDY)
        assert kv.last_match.token_count == len(first_turn(model).ids) + 4
        assert torch.equal(output, model.generate(**prompt.inputs(), max_new_tokens=8, min_new_tokens=8, **GREEDY))
        follow = tiny.Prompts(output[0].tolist(), prompt.media).then(tiny.text(5, 3))
        assert kv.match(follow.inputs()).token_count == len(prompt.ids) + 7


def test_the_last_token_of_a_prompt_is_always_computed(store, model):
    with Cache(store, model, profile="exact") as kv:
        prompt = first_turn(model)
        kv.save("session/whole", prompt.inputs(), prefilled(model, prompt))
        match = kv.match(prompt.inputs())
        # sliding windows have dropped what the token before would need
        assert match.token_count == (0 if model.config.model_type == "gemma3_text" else len(prompt.ids) - 1)
        again = kv.generate(**prompt.inputs(), max_new_tokens=5, min_new_tokens=5, **GREEDY)
        assert torch.equal(again, model.generate(**prompt.inputs(), max_new_tokens=5, min_new_tokens=5, **GREEDY))


def test_lossy_pages_are_shared_and_never_stored_as_exact(store, qwen):
    with Cache(store, qwen) as kv:
        prompt = tiny.conversation(tiny.qwen_image(1))
        kv.save("session/alice", prompt.inputs(), prefilled(qwen, prompt))
        longer = prompt.then(tiny.text(5, 40))
        match = kv.match(longer.inputs())
        assert match.token_count == len(prompt.ids) and not match.is_exact
        past = kv.restore(match)
        qwen(**(longer.inputs() | {"pixel_values": None, "input_ids": torch.tensor([longer.ids[len(prompt.ids) :]]), "attention_mask": None,
             "image_grid_thw": None, "mm_token_type_ids": None}), past_key_values=past)
        with pytest.raises(InvalidArgument, match="lossy"):
            kv.save("video/clip", longer.inputs(), past)
        for copied in (copy.deepcopy(past), pickle.loads(pickle.dumps(past))):
            with pytest.raises(InvalidArgument, match="lossy"):
                kv.save("video/clip", longer.inputs(), copied)
        assert kv.save("session/bob", longer.inputs(), past) == 40
        assert store.session("bob").prefix().key_error > 0
        # alice says the same: her session goes over to the pages that are there
        assert kv.save("session/alice", longer.inputs(), past) in (0, 40)
        third = kv.match(longer.then(tiny.text(6, 5)).inputs())
        assert third.token_count == len(longer.ids)
        store.session("alice").truncate(50)
        past = kv.restore(third)
        kv.save("session/alice", longer.inputs(), past)
        assert store.session("alice").token_count == len(longer.ids) and store.session("alice").prefix().key_error > 0
        assert store.verify().is_sound


def test_a_session_that_says_something_else_is_cut_back(store, model):
    with Cache(store, model, profile="exact") as kv:
        prompt = first_turn(model)
        one, other = prompt.then(tiny.text(30, 20)), prompt.then(tiny.text(31, 25))
        kv.save("session/s", one.inputs(), prefilled(model, one))
        assert kv.save("session/s", one.inputs(), prefilled(model, one)) == 0
        assert kv.save("session/s", other.inputs(), prefilled(model, other)) == 25
        assert store.session("s").prefix().tokens() == kv.tokens(other.inputs())
        if model.config.model_type != "gemma3_text":
            assert kv.save("session/s", prompt.inputs(), prefilled(model, prompt)) == 0
        assert store.session("s").token_count == len(other.ids)


def test_a_turn_that_cannot_be_saved_is_still_returned(store, qwen, monkeypatch):
    with Cache(store, qwen, profile="exact") as kv:
        prompt = first_turn(qwen)

        def fail(*arguments, **named):
            raise Conflict("another process changed the session")

        monkeypatch.setattr(kv, "save", fail)
        with pytest.warns(NotSaved, match="another process"):
            output = kv.generate(**prompt.inputs(), session="s", max_new_tokens=3, return_dict_in_generate=True, **GREEDY)
        assert output.sequences.shape[1] == len(prompt.ids) + 3


def test_pages_that_vanish_are_computed_anew(store, qwen, monkeypatch):
    with Cache(store, qwen, profile="exact") as kv:
        prompt = first_turn(qwen)
        expected = kv.generate(**prompt.inputs(), session="s", max_new_tokens=3, **GREEDY)
        monkeypatch.setattr(kv, "restore", lambda match, layerwise=False, real=kv.restore: real(match) if match.token_count == 0 else gone())

        def gone():
            raise reelkv.PageUnavailable("evicted")

        assert torch.equal(kv.generate(**prompt.inputs(), max_new_tokens=3, **GREEDY), expected)
        assert kv.last_match.token_count == 0


# Identity


def test_media_are_known_by_pixels_grid_sampling_and_settings(store, qwen):
    with Cache(store, qwen, profile="exact") as kv:
        prompt = tiny.conversation(tiny.qwen_video(1))
        kv.save("session/s", prompt.inputs(), prefilled(qwen, prompt))
        longer = prompt.then([5, 6])

        def matched(changes=None, other=kv):
            inputs = longer.inputs()
            return other.match(inputs | (changes(inputs) if changes else {})).token_count

        before, whole = 71, len(prompt.ids)  # the marker in front of the video is text
        assert matched() == whole
        pixels = longer.media["pixel_values_videos"].clone()
        pixels[-1, -1] += 1e-6
        assert matched(lambda inputs: {"pixel_values_videos": pixels}) == before
        assert matched(lambda inputs: {"pixel_values_videos": inputs["pixel_values_videos"].double()}) == before
        assert matched(lambda inputs: {"second_per_grid_ts": [0.5]}) == before
        assert matched(lambda inputs: {"video_grid_thw": torch.tensor([[6, 2, 8]])}) == before
        assert matched(lambda inputs: {"pixel_values_videos": inputs["pixel_values_videos"].clone()}) == whole

        class Processor:
            def __init__(self, fps):
                self.fps = fps

            def to_dict(self):
                return {"fps": self.fps, "transformers_version": str(id(self))}

        with Cache(store, qwen, processor=Processor(2)) as a, Cache(store, qwen, processor=Processor(2)) as b, Cache(store, qwen, processor=Processor(1)) as c:
            digests = [kv.tokens(longer.inputs()).media[0].digest for kv in (kv, a, b, c)]
            assert digests[1] == digests[2] and len(set(digests)) == 3


def test_a_match_does_not_end_inside_of_an_image(store, model):
    if model.config.model_type == "gemma3_text":
        pytest.skip("a model of text alone")
    image = tiny.qwen_image if model.config.model_type == "qwen2_5_vl" else tiny.llava_image
    with Cache(store, model, profile="exact") as kv:
        ids, media = image(1)
        prompt = tiny.Prompts(tiny.text(1, 40), {}).then(ids, media).then(tiny.text(2, 20))
        past, inside = prefilled(model, prompt), 40 + len(ids) // 2
        with store.writer("session/s", kv.spec, "exact") as writer:  # another engine, which stopped there
            writer.append(kv.tokens(prompt.inputs())[:inside], cache_layers(past, 0, inside))
        match = kv.match(prompt.inputs())
        assert match.token_count == 40 + ids.index(tiny.IMAGE) < inside
        assert torch.equal(
            kv.generate(**prompt.inputs(), max_new_tokens=4, **GREEDY), model.generate(**prompt.inputs(), max_new_tokens=4, **GREEDY)
        )


def test_two_images_are_two_spans(store, qwen):
    with Cache(store, qwen) as kv:
        first, second = tiny.qwen_image(1), tiny.qwen_image(2, 8, 4)
        prompt = tiny.Prompts([9], {}).then(*first).then([8, 7]).then(*second).then(*first).then([3])
        spans = kv.tokens(prompt.inputs()).media
        assert [(span.first_token, span.count) for span in spans] == [(2, 8), (14, 8), (24, 8)]
        assert spans[0].digest == spans[2].digest != spans[1].digest


# What cannot be


def test_what_cannot_be_identified_is_told(store, qwen):
    with Cache(store, qwen) as kv:
        inputs = tiny.conversation(tiny.qwen_image(1)).inputs()
        for changes, message in (
            ({"pixel_values": None, "image_grid_thw": None}, "no pixel_values"),
            ({"attention_mask": torch.zeros_like(inputs["input_ids"])}, "padding"),
            ({"input_ids": inputs["input_ids"].expand(2, -1)}, "one sequence at a time"),
            ({"input_ids": None}, "no input_ids"),
            ({"input_features": torch.zeros(1)}, "input_features"),
            ({"pixel_values": [1.0]}, "must be a tensor"),
            ({"pixel_values_videos": torch.zeros(4, 96)}, "no video tokens"),
        ):
            with pytest.raises(InvalidArgument, match=message):
                kv.match({**inputs, **changes})
        for options, message in (({"num_beams": 2}, "num_beams"), ({"past_key_values": DynamicCache()}, "past_key_values")):
            with pytest.raises(InvalidArgument, match=message):
                kv.generate(**inputs, **options)


def test_other_caches_are_refused(store, qwen):
    with Cache(store, qwen) as kv:
        with pytest.raises(InvalidArgument, match="StaticCache"):
            kv.save("session/s", [1, 2], StaticCache(config=qwen.config, max_cache_len=8))
        two = DynamicCache(config=qwen.config)
        qwen(input_ids=torch.tensor([[1, 2], [3, 4]]), past_key_values=two)
        with pytest.raises(InvalidArgument, match="2 sequences"):
            kv.save("session/s", [1, 2], two)
        past = prefilled(qwen, tiny.Prompts([1, 2, 3], {}))
        with pytest.raises(InvalidArgument, match="the inputs only 2"):
            kv.save("session/s", [1, 2], past)
        with pytest.raises(InvalidArgument, match="not within"):
            cache_layers(past, 2, 5)
    unseen = prefilled(qwen, tiny.Prompts([1, 2, 3], {}))
    with Cache(store, qwen) as kv, pytest.raises(InvalidArgument, match="positions are not known"):
        kv.save("session/s", [1, 2, 3], unseen)


def test_an_engine_state_of_another_engine_is_refused(store, qwen):
    with Cache(store, qwen, profile="exact") as kv:
        prompt = tiny.conversation(tiny.qwen_video(1))
        past = prefilled(qwen, prompt)
        for state in (b"\0\1", b"{}", b'{"reelkv.hf": 99, "rope_deltas": [[1]]}'):
            with store.writer("video/v", kv.spec, "exact", replace=True) as writer:
                writer.append(kv.tokens(prompt.inputs()), cache_layers(past))
                writer.finish(engine_state=state)
            with pytest.raises(InvalidArgument, match="engine state"):
                kv.restore(store.video("v").prefix())


def test_weights_in_memory_have_a_fingerprint(qwen):
    same, other = tiny.build(tiny.qwen), tiny.build(tiny.qwen)
    next(other.parameters()).flatten()[3] += 1e-6
    assert state_fingerprint(qwen) == state_fingerprint(same) != state_fingerprint(other)
    assert len({state_fingerprint(tiny.build(make)) for make in MODELS.values()}) == 3


# Tensors


def test_torch_tensors_are_written_in_place_and_others_refused(store, qwen):
    with Cache(store, qwen, profile="exact") as kv:
        prompt = tiny.conversation(tiny.qwen_image(1))
        past = prefilled(qwen, prompt)
        kv.save("session/s", prompt.inputs(), past)
        match = store.session("s").prefix()
        count, shape = match.token_count, match.layers[0]
        with torch.inference_mode(False):
            into = [tuple(torch.zeros(count, 2, dim, dtype=torch.bfloat16).transpose(0, 1) for dim in (shape.key_dim, shape.value_dim)) for _ in match.layers]
        restored = match.restore(into=into)
        for layer, (key, value), own in zip(past.layers, into, match.restore(as_torch=True)):
            assert torch.equal(key, layer.keys[0].bfloat16()) and torch.equal(value, layer.values[0].bfloat16())
            assert torch.equal(own.key, layer.keys[0]) and not own.key.is_inference()
        assert restored[0].key is into[0][0]
        with torch.inference_mode(False):
            grads = [(torch.zeros_like(key[:, :count], requires_grad=True), None) for key, _ in into]
        with pytest.raises(InvalidArgument, match="detach"):
            match.restore(into=grads)
        with pytest.raises(InvalidArgument, match="device 'meta'"):
            match.restore(into=[(key.to("meta"), None) for key, _ in into])
        with pytest.raises(InvalidArgument, match="float64"):
            match.restore(into=[(key.double(), None) for key, _ in into])


def test_tensors_that_require_grad_are_stored(store, qwen):
    with Cache(store, qwen, profile="exact") as kv, torch.inference_mode(False), torch.enable_grad():
        prompt = tiny.Prompts(tiny.text(1, 40), {})
        past = prefilled(qwen, prompt)
        assert past.layers[0].keys.requires_grad
        assert kv.save("session/s", prompt.inputs(), past) == 40


def test_nothing_warns_where_nothing_is_wrong(store, qwen):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Cache(store, qwen) as kv:
            kv.generate(**first_turn(qwen).inputs(), session="s", max_new_tokens=3, **GREEDY)
