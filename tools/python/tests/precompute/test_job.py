"""What is stored of a clip: bit for bit what the model computed, whole or interrupted, and never lossy pages for more than they are."""

import json

import pytest
import torch
import transformers as tf

import reelkv
from reelkv.precompute import Interrupted, Options, PrecomputeError, Sampling, chat_inputs, open_clip, precompute, prefix_inputs
from reelkv.precompute import job as job_module
from reelkv.precompute.decoder import DecoderCall, take_down

KINDS = ["qwen2_5_vl", "qwen3_vl", "llava_onevision"]
PAGE = 32

# Its interleaved M-RoPE is not undone, which the store says.
pytestmark = pytest.mark.filterwarnings("ignore:How a model of type .qwen3_vl_text. rotates")


@pytest.fixture(params=KINDS)
def engine(request, engine_of):
    return engine_of(request.param)


@pytest.fixture(scope="module")
def long_clip(clip_file):
    """40 frames: 45 tokens to 500, by model."""
    return open_clip(clip_file, Sampling(fps=10))


@pytest.fixture
def store(tmp_path):
    with reelkv.Store.create(tmp_path / "store", page_tokens=PAGE) as store:
        yield store


def options(**fields) -> Options:
    return Options(**{"profile": "exact", "chunk_tokens": PAGE, **fields})


def stopped_after(monkeypatch, chunks: int, error: BaseException) -> None:
    """Has the prefill end with an error after so many chunks."""
    own, run = DecoderCall.run, []

    def stopping(call, cache, tokens):
        if len(run) == chunks:
            raise error
        run.append(tokens)
        return own(call, cache, tokens)

    monkeypatch.setattr(DecoderCall, "run", stopping)


@pytest.fixture
def computed(monkeypatch):
    """The chunks that are computed."""
    own, chunks = DecoderCall.run, []
    monkeypatch.setattr(DecoderCall, "run", lambda call, cache, tokens: chunks.append(tokens) or own(call, cache, tokens))
    return chunks


@torch.inference_mode()
def in_chunks(engine, clip, chunk_tokens: int = PAGE) -> tf.DynamicCache:
    """What an uninterrupted prefill in chunks of that size computes."""
    inputs = job_module.encode_frames(engine.model, dict(prefix_inputs(engine.processor, clip)), 0, 16)
    cache = tf.DynamicCache(config=engine.model.config.get_text_config())
    list(take_down(engine.model, inputs).chunks(cache, chunk_tokens))
    return cache


def restored(store, name: str):
    return store.video(name).prefix().restore(as_torch=True)


def assert_same_bits(layers, cache) -> None:
    for (key, value), layer in zip(layers, cache.layers, strict=True):
        assert torch.equal(key, layer.keys[0]) and torch.equal(value, layer.values[0])


# Whole


def test_exact_is_what_the_prefill_held_bit_for_bit(store, engine, long_clip):
    result = precompute(store, engine, long_clip, "square", options())
    assert_same_bits(restored(store, "square"), in_chunks(engine, long_clip))
    assert result.tokens == result.computed_tokens == store.video("square").token_count and result.restored_tokens == 0
    assert result.new_bytes == result.stored_bytes > 0 and result.key_error == 0 and not result.is_unchanged


def test_in_one_chunk_it_is_the_models_own_cache_bit_for_bit(store, engine, long_clip):
    precompute(store, engine, long_clip, "square", options(chunk_tokens=4096, frames_per_pass=100))
    with torch.inference_mode():
        inputs = prefix_inputs(engine.processor, long_clip)
        cache = engine.model(**inputs, use_cache=True).past_key_values
    assert_same_bits(restored(store, "square"), cache)


def test_what_is_kept_beside_the_cache(store, engine, long_clip, clip_file):
    precompute(store, engine, long_clip, "square", options(system="Look."))
    video = store.video("square")
    assert video.is_pinned and video.profile == "exact" and not video.is_building
    told = video.provenance
    assert told["source"] == "square.mp4" and told["source_sha256"] == long_clip.sha256
    assert json.loads(told["sampling"]) == {"fps": 10} and told["model_folder"] == engine.folder.name
    assert json.loads(told["processor"])["do_rescale"] is True and "resumed" not in told
    assert {span.digest.hex() for span in video.prefix().tokens().media} == set(told["media_digest"].split())
    groups = 40 if engine.model.config.model_type == "llava_onevision" else 20
    assert len(video.frames) == groups
    assert [frame.seconds for frame in video.frames] == pytest.approx([4 * index / groups for index in range(groups)])
    with reelkv.hf.Cache(store, engine.model, weights=engine.folder, processor=engine.processor) as kv:
        state = video.prefix().engine_state
        assert (state is not None) == engine.model.config.model_type.startswith("qwen")
        positions = kv.tokens(prefix_inputs(engine.processor, long_clip, "Look.")).positions
    if state is not None:
        assert json.loads(state)["rope_deltas"] == [[int(positions.max()) + 1 - video.token_count]]


def test_a_chat_goes_on_from_it(store, engine, long_clip):
    precompute(store, engine, long_clip, "square", options(chunk_tokens=4096, frames_per_pass=100))
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What moves in the street?"}]}]
    inputs = chat_inputs(engine.processor, long_clip, messages, add_generation_prompt=True)
    expected = engine.model.generate(**inputs, max_new_tokens=8, do_sample=False)
    with reelkv.hf.Cache(store, engine.model, weights=engine.folder, processor=engine.processor, profile="exact") as kv:
        answer = kv.generate(**inputs, session="alice", max_new_tokens=8, do_sample=False)
        assert kv.last_match.token_count == store.video("square").token_count
    assert torch.equal(answer, expected)


def test_another_name_for_what_is_stored_computes_nothing(store, engine_of, long_clip, computed):
    engine = engine_of("llava_onevision")
    precompute(store, engine, long_clip, "one", options())
    computed.clear()
    result = precompute(store, engine, long_clip, "two", options())
    assert [chunk.start for chunk in computed] == [result.restored_tokens] and result.restored_tokens == result.tokens // PAGE * PAGE
    assert result.new_bytes == 0
    assert_same_bits(restored(store, "two"), in_chunks(engine, long_clip))


def test_the_same_again_changes_nothing(store, engine, long_clip, computed):
    first = precompute(store, engine, long_clip, "square", options())
    computed.clear()
    again = precompute(store, engine, long_clip, "square", options())
    assert again.is_unchanged and not computed and again.computed_tokens == again.new_bytes == 0
    assert (again.tokens, again.stored_bytes) == (first.tokens, first.stored_bytes)


def test_a_name_is_not_taken_from_another_clip(store, engine_of, long_clip, clip):
    engine = engine_of("qwen2_5_vl")
    precompute(store, engine, long_clip, "square", options())
    before = store.video("square").token_count
    with pytest.raises(PrecomputeError, match="video/square holds another video, other sampling"):
        precompute(store, engine, clip, "square", options())
    assert store.video("square").token_count == before
    precompute(store, engine, clip, "square", options(replace=True))
    assert store.video("square").token_count < before
    assert_same_bits(restored(store, "square"), in_chunks(engine, clip))


def test_another_profile_is_stored_beside(store, engine_of, long_clip):
    engine = engine_of("llava_onevision")
    precompute(store, engine, long_clip, "square", options())
    result = precompute(store, engine, long_clip, "square", options(profile="int8"))
    assert not result.is_unchanged and store.video("square").profile == "int8"


# Interrupted


@pytest.mark.parametrize("chunks", [0, 1, 3])
def test_interrupted_and_begun_again_it_is_the_same_bit_for_bit(store, engine_of, long_clip, monkeypatch, chunks):
    engine = engine_of("llava_onevision")
    with monkeypatch.context() as patched:
        stopped_after(patched, chunks, KeyboardInterrupt())
        with pytest.raises(Interrupted, match=f"interrupted; {chunks * PAGE} of 164 tokens are stored, and the same command") as raised:
            precompute(store, engine, long_clip, "square", options())
    assert raised.value.by_person
    assert store.videos() == [] and store.verify().is_sound
    result = precompute(store, engine, long_clip, "square", options())
    assert (result.restored_tokens, result.computed_tokens) == (chunks * PAGE, 164 - chunks * PAGE)
    assert result.context_key_error == 0
    assert_same_bits(restored(store, "square"), in_chunks(engine, long_clip))
    assert store.verify().is_sound and [video.name for video in store.videos(building=True)] == ["square"]


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_resumed_models_with_positions_of_their_own(store, engine_of, clip_file, monkeypatch, kind):
    engine, clip = engine_of(kind), open_clip(clip_file, Sampling(fps=10))
    with monkeypatch.context() as patched:
        stopped_after(patched, 1, KeyboardInterrupt())
        with pytest.raises(Interrupted):
            precompute(store, engine, clip, "square", options())
    engine.model.model.rope_deltas = None  # as in a new process
    result = precompute(store, engine, clip, "square", options())
    assert result.restored_tokens == PAGE
    assert_same_bits(restored(store, "square"), in_chunks(engine, clip))


def test_only_whole_chunks_are_gone_on_from(store, engine_of, long_clip, monkeypatch):
    """A chunk that was half stored is computed again: from elsewhere, its last bits would be others."""
    engine = engine_of("llava_onevision")
    with monkeypatch.context() as patched:
        stopped_after(patched, 3, KeyboardInterrupt())
        with pytest.raises(Interrupted, match="96 of 164 tokens are stored"):
            precompute(store, engine, long_clip, "square", options())
    result = precompute(store, engine, long_clip, "square", options(chunk_tokens=2 * PAGE))
    assert result.restored_tokens == 64 and result.stored_tokens_before == 96


def test_the_features_of_restored_tokens_are_not_computed(store, engine_of, long_clip, monkeypatch):
    engine = engine_of("llava_onevision")
    with monkeypatch.context() as patched:
        stopped_after(patched, 4, KeyboardInterrupt())
        with pytest.raises(Interrupted):
            precompute(store, engine, long_clip, "square", options())
    encoded = []
    own = engine.model.get_video_features
    monkeypatch.setattr(engine.model, "get_video_features", lambda pixels, **named: encoded.append(pixels.shape[1]) or own(pixels, **named))
    precompute(store, engine, long_clip, "square", options(frames_per_pass=1))
    assert 0 < sum(encoded) < 12
    assert_same_bits(restored(store, "square"), in_chunks(engine, long_clip))


def test_another_error_keeps_what_was_stored_too(store, engine_of, long_clip, monkeypatch):
    engine = engine_of("llava_onevision")
    with monkeypatch.context() as patched:
        stopped_after(patched, 2, RuntimeError("a kernel failed"))
        with pytest.raises(RuntimeError, match="a kernel failed"):
            precompute(store, engine, long_clip, "square", options())
    assert precompute(store, engine, long_clip, "square", options()).restored_tokens == 2 * PAGE


def test_memory_that_runs_out_is_told_with_advice(store, engine_of, long_clip, monkeypatch):
    engine = engine_of("llava_onevision")
    with monkeypatch.context() as patched:
        stopped_after(patched, 1, torch.OutOfMemoryError("tried to allocate 20 GiB"))
        with pytest.raises(Interrupted, match="no memory left .tried to allocate 20 GiB.: take fewer frames.*; 32 of 164 tokens") as raised:
            precompute(store, engine, long_clip, "square", options())
    assert not raised.value.by_person


def test_a_quota_that_is_reached_keeps_what_was_stored(tmp_path, engine_of, long_clip):
    engine = engine_of("llava_onevision")
    with reelkv.Store.create(tmp_path / "bounded", page_tokens=PAGE) as store:
        store.update_settings(quota_bytes=1 << 20)
        with pytest.raises(Interrupted, match=r"quota.*; \d+ of \d+ tokens are stored, and the same command goes on from token"):
            for index in range(20):  # pinned, so that nothing of it may go
                precompute(store, engine, long_clip, f"square-{index}", options(system=f"number {index}"))
        assert 0 < len(store.videos()) == index and store.verify().is_sound


# Interrupted under a lossy profile


LOSSY = "vidkv-1.5-1.58"


def interrupted(store, engine, clip, monkeypatch, **fields) -> None:
    with monkeypatch.context() as patched:
        stopped_after(patched, 2, KeyboardInterrupt())
        with pytest.raises(Interrupted):
            precompute(store, engine, clip, "square", options(**fields))


def test_lossy_pages_are_gone_on_from_and_it_is_told(store, engine_of, long_clip, monkeypatch):
    engine = engine_of("llava_onevision")
    interrupted(store, engine, long_clip, monkeypatch, profile=LOSSY)
    stored = store.longest_prefix(tokens_of(store, engine, long_clip), store.models()[0].name)
    kept = stored.restore(as_torch=True)
    result = precompute(store, engine, long_clip, "square", options(profile=LOSSY))
    assert result.restored_tokens == result.stored_tokens_before == 2 * PAGE
    assert result.context_key_error == pytest.approx(stored.key_error) and result.context_key_error > 0
    told = json.loads(store.video("square").provenance["resumed"])
    assert told["tokens"] == 2 * PAGE and told["key_error"] == pytest.approx(stored.key_error, rel=1e-3)
    for (key, value), (old_key, old_value) in zip(restored(store, "square"), kept, strict=True):
        assert torch.equal(key[:, : 2 * PAGE], old_key) and torch.equal(value[:, : 2 * PAGE], old_value), "quantized anew"


def test_recomputed_it_is_as_if_never_interrupted(store, tmp_path, engine_of, long_clip, monkeypatch):
    engine = engine_of("llava_onevision")
    interrupted(store, engine, long_clip, monkeypatch, profile=LOSSY)
    result = precompute(store, engine, long_clip, "square", options(profile=LOSSY, from_lossy=False))
    assert result.restored_tokens == 0 and result.stored_tokens_before == 2 * PAGE and result.context_key_error == 0
    with reelkv.Store.create(tmp_path / "other", page_tokens=PAGE) as other:
        precompute(other, engine, long_clip, "square", options(profile=LOSSY))
        for (key, value), (other_key, other_value) in zip(restored(store, "square"), restored(other, "square"), strict=True):
            assert torch.equal(key, other_key) and torch.equal(value, other_value)


def test_lossy_pages_of_another_profile_are_not_encoded_again(store, tmp_path, engine_of, long_clip, monkeypatch):
    engine = engine_of("llava_onevision")
    interrupted(store, engine, long_clip, monkeypatch, profile="kivi-2")
    result = precompute(store, engine, long_clip, "square", options(profile="int8"))
    assert result.restored_tokens == 0 and result.context_key_error == 0
    with reelkv.Store.create(tmp_path / "other", page_tokens=PAGE) as other:
        precompute(other, engine, long_clip, "square", options(profile="int8"))
        for (key, value), (other_key, other_value) in zip(restored(store, "square"), restored(other, "square"), strict=True):
            assert torch.equal(key, other_key) and torch.equal(value, other_value)
    assert store.verify().is_sound


def test_exact_does_not_go_on_from_lossy_pages(store, engine_of, long_clip, monkeypatch):
    engine = engine_of("llava_onevision")
    interrupted(store, engine, long_clip, monkeypatch, profile=LOSSY)
    assert precompute(store, engine, long_clip, "square", options()).restored_tokens == 0
    assert_same_bits(restored(store, "square"), in_chunks(engine, long_clip))


def tokens_of(store, engine, clip):
    with reelkv.hf.Cache(store, engine.model, weights=engine.folder, processor=engine.processor) as kv:
        return kv.tokens(prefix_inputs(engine.processor, clip))
