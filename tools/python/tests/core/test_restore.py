"""What goes in comes out: restores into memory of any shape, in parts, in the background, of every element type."""

import numpy as np
import pytest

import reelkv
from reelkv import Acceptance, InvalidArgument, MediaSpan, ModelMismatch, Tokens, bfloat16_to_float32, float32_to_bfloat16

from .caches import HEADS, KEY_DIM, LAYERS, MODEL, VALUE_DIM, append, assert_same, cache, ids, part, spec, write

COUNT = 150


@pytest.fixture
def match(store):
    write(store, "video/clip", ids(COUNT), cache(COUNT))
    return store.longest_prefix(ids(COUNT), MODEL)


def test_a_cache_comes_back_bit_for_bit(match):
    assert (match.token_count, match.stop, match.is_exact, len(match)) == (COUNT, "complete", True, COUNT)
    assert (match.key_error, match.value_error, match.refused_error, match.dtype) == (0, 0, None, "float32")
    assert [(s.kv_heads, s.key_dim, s.value_dim, s.sliding_window) for s in match.layers] == [(HEADS, KEY_DIM, VALUE_DIM, None)] * LAYERS
    restored = match.restore()
    assert_same(restored, cache(COUNT))
    assert [(layer.layer, layer.first_token) for layer in restored] == [(index, 0) for index in range(LAYERS)]
    assert restored[1].key is restored[1][0] and restored[1].value is restored[1][1]


@pytest.mark.parametrize("tokens", [None, slice(0, 1), slice(10, 100), range(31, 33), slice(-5, None), slice(32, 64), slice(7, 7)])
@pytest.mark.parametrize("layers", [None, slice(1, 2), range(1, 3), slice(2, 2)])
def test_parts_come_back(match, layers, tokens):
    restored = match.restore(layers=layers, tokens=tokens)
    chosen = range(LAYERS) if layers is None else range(LAYERS)[layers] if isinstance(layers, slice) else layers
    rows = tokens if isinstance(tokens, slice) else slice(None) if tokens is None else slice(tokens.start, tokens.stop)
    whole = cache(COUNT)
    assert_same(restored, [(whole[at][0][:, rows], whole[at][1][:, rows]) for at in chosen])
    assert [layer.layer for layer in restored] == list(chosen)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_values_are_converted(match, dtype):
    convert = {"float16": lambda a: a.astype(np.float16), "bfloat16": float32_to_bfloat16, "float32": lambda a: a}[dtype]
    assert_same(match.restore(dtype=dtype), [(convert(key), convert(value)) for key, value in cache(COUNT)])


LAYOUTS = {
    "plain": lambda dim: np.zeros((HEADS, COUNT, dim), np.float32),
    "batch": lambda dim: np.zeros((1, HEADS, COUNT, dim), np.float32),
    "tokens first": lambda dim: np.zeros((COUNT, HEADS, dim), np.float32).transpose(1, 0, 2),
    "channels first": lambda dim: np.zeros((HEADS, dim, COUNT), np.float32).transpose(0, 2, 1),
    "within more": lambda dim: np.zeros((HEADS + 2, 2 * COUNT, dim + 5), np.float32)[1:-1, COUNT // 2 : COUNT // 2 + COUNT, 2 : 2 + dim],
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_memory_of_any_strides_is_written_in_place(match, layout):
    into = [(layout(KEY_DIM), layout(VALUE_DIM)) for _ in range(LAYERS)]
    restored = match.restore(into=into)
    for index, ((key, value), (expected_key, expected_value)) in enumerate(zip(into, cache(COUNT))):
        assert restored[index].key is key and restored[index].value is value
        assert np.array_equal(key.reshape(key.shape[-3:]), expected_key)
        assert np.array_equal(value.reshape(value.shape[-3:]), expected_value)
        if key.base is not None and key.base.size > key.size and key.base.ndim == 3:
            assert np.count_nonzero(key.base) == np.count_nonzero(expected_key)


def test_what_is_not_wanted_is_not_written(match):
    keys = [np.zeros((HEADS, COUNT, KEY_DIM), np.float32) for _ in range(LAYERS)]
    restored = match.restore(into=[(key, None) for key in keys])
    assert restored[0].value is None
    for key, (expected, _) in zip(keys, cache(COUNT)):
        assert np.array_equal(key, expected)


def test_a_background_restore_hands_over_layer_by_layer(match):
    into = [(np.zeros((HEADS, COUNT, KEY_DIM), np.float32), np.zeros((HEADS, COUNT, VALUE_DIM), np.float32)) for _ in range(LAYERS)]
    with match.restoring(into=into, threads=1) as job:
        for at, layer in enumerate(job):
            assert layer.layer == at
            assert_same([layer], cache(COUNT)[at : at + 1])
    with match.restoring() as job:
        assert_same([job.wait(2)], cache(COUNT)[2:])
    with match.restoring(layers=slice(1, 3), tokens=slice(5, 9)) as job:
        assert job.layers == range(1, 3)
        assert_same(list(job), part(cache(COUNT), 5, 9)[1:])


def test_leaving_the_block_waits_for_what_was_not_waited_for(match):
    into = [(np.zeros((HEADS, COUNT, KEY_DIM), np.float32), np.zeros((HEADS, COUNT, VALUE_DIM), np.float32)) for _ in range(LAYERS)]
    with match.restoring(into=into):
        pass
    assert_same(into, cache(COUNT))


def test_a_restore_that_ended_says_so(match):
    with match.restoring() as job:
        pass
    with pytest.raises(reelkv.Closed):
        job.wait(0)
    job.close()
    with pytest.raises(RuntimeError, match="the engine stops"):
        with match.restoring():
            raise RuntimeError("the engine stops")
    match.restoring()  # dropped at once: it ends when nothing refers to it


@pytest.mark.parametrize(
    "arguments, error",
    [
        (dict(layers=slice(0, 3, 2)), InvalidArgument),
        (dict(layers=range(1, 4)), InvalidArgument),
        (dict(tokens=range(0, COUNT + 1)), InvalidArgument),
        (dict(tokens=5), InvalidArgument),
        (dict(threads=0), InvalidArgument),
        (dict(dtype="int8"), InvalidArgument),
        (dict(into=[]), InvalidArgument),
        (dict(into=[None] * LAYERS), InvalidArgument),
        (dict(into=[(np.zeros((HEADS, COUNT, KEY_DIM), np.float32), None)] * LAYERS, dtype="float32"), InvalidArgument),
        (dict(into=[(np.zeros((HEADS, COUNT, KEY_DIM + 1), np.float32), None)] * LAYERS), ModelMismatch),
        (dict(into=[(np.zeros((HEADS, COUNT - 1, KEY_DIM), np.float32), None)] * LAYERS), ModelMismatch),
        (dict(into=[(np.zeros((HEADS + 1, COUNT, KEY_DIM), np.float32), None)] * LAYERS), ModelMismatch),
    ],
)
def test_what_cannot_be_restored_is_told(match, arguments, error):
    with pytest.raises(error):
        match.restore(**arguments)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("profile", ["exact", "int8", "vidkv-1.5-1.58"])
def test_every_type_and_profile(store, dtype, profile):
    model = spec(dtype)
    store.add_model(model)
    convert = {"float16": lambda a: a.astype(np.float16), "bfloat16": float32_to_bfloat16, "float32": lambda a: a}[dtype]
    layers = [(convert(key), convert(value)) for key, value in cache(COUNT)]
    write(store, "session/s", ids(COUNT), layers, model, profile)
    match = store.longest_prefix(ids(COUNT), model)
    assert match.token_count == COUNT and match.dtype == dtype
    restored = match.restore()
    tail = COUNT // 32 * 32
    for (key, value), (expected_key, expected_value) in zip(restored, layers):
        for got, expected in ((key, expected_key), (value, expected_value)):
            assert got.dtype == expected.dtype
            # the first tokens, and those after the last full page, are exact whatever the profile
            for exact in [slice(None)] if profile == "exact" else [slice(0, 4), slice(tail, None)]:
                assert np.array_equal(got[:, exact], expected[:, exact])
    if profile != "exact":
        assert not match.is_exact and match.key_error > 0 and match.value_error > 0
        refused = store.longest_prefix(ids(COUNT), model, accept="exact")
        assert (refused.token_count, refused.stop) == (0, "too-lossy") and min(refused.refused_error) > 0
        bound = Acceptance(match.key_error * 2, match.value_error * 2)
        assert store.longest_prefix(ids(COUNT), model, accept=bound).token_count == COUNT
        values = bfloat16_to_float32(restored[0].value) if dtype == "bfloat16" else restored[0].value.astype(np.float32)
        expected = cache(COUNT)[0][1]
        assert ((values - expected) ** 2).mean() < (0.001 if profile == "int8" else 0.5) * (expected**2).mean()


def test_sliding_windows_come_back_with_what_they_hold(store):
    window = 40
    model = spec("float32", "34" * 32, "sliding", sliding_window=[None, window, None])
    store.add_model(model)
    layers = cache(COUNT)
    held = [layers[0], part(layers, COUNT - window + 1)[1], layers[2]]
    tokens = Tokens(ids(COUNT))
    with store.writer("session/s", model, "exact") as writer:
        writer.append(tokens, held)
    match = store.longest_prefix(tokens, model)
    assert match.token_count == COUNT and [shape.sliding_window for shape in match.layers] == [None, window, None]
    restored = match.restore()
    first = restored[1].first_token
    assert 0 < first <= COUNT - window + 1
    assert np.array_equal(restored[1].key[:, first:], layers[1][0][:, first:]) and not restored[1].key[:, :first].any()
    assert_same([restored[0], restored[2]], [layers[0], layers[2]])
    last = match.restore(tokens=slice(COUNT - window + 1, COUNT))
    assert last[1].first_token == 0
    assert_same(last, part(layers, COUNT - window + 1))
    shorter = store.longest_prefix(tokens[: COUNT - 10], model)
    assert (shorter.token_count, shorter.stop) == (0, "sliding-window")


def test_media_and_positions_are_part_of_what_is_found(store):
    digest, other = b"\1" * 32, b"\2" * 32
    positions = np.stack([np.arange(COUNT) // 2, np.arange(COUNT) % 7, np.arange(COUNT)])
    tokens = Tokens(ids(COUNT), [MediaSpan(digest, 10, 90)], positions)
    write(store, "video/clip", tokens, cache(COUNT))
    match = store.longest_prefix(tokens, MODEL)
    assert match.token_count == COUNT
    found = match.tokens()
    assert found == tokens and found.ids[10:100].tolist() == [-1] * 90 and found.positions.tolist() == positions.tolist()

    def matched(media, positions=positions):
        return store.longest_prefix(Tokens(ids(COUNT), media, positions), MODEL).token_count

    assert matched([MediaSpan(other, 10, 90)]) == 10
    assert matched([MediaSpan(digest, 10, 90, media_offset=1)]) == 10
    assert matched([MediaSpan(digest, 10, 40), MediaSpan(other, 50, 50)]) == 50
    assert matched([MediaSpan(digest, 10, 90)], None) == 1  # the first token is at position 0 either way
    changed = positions.copy()
    changed[1, 77] += 1
    assert matched([MediaSpan(digest, 10, 90)], changed) == 77


def test_engine_state_is_given_back_where_it_is_right(store):
    write(store, "session/s", ids(COUNT), cache(COUNT), engine_state=b"\0state\xff")
    assert store.longest_prefix(ids(COUNT), MODEL).engine_state == b"\0state\xff"
    assert store.longest_prefix(ids(COUNT) + [1], MODEL).engine_state == b"\0state\xff"
    assert store.longest_prefix(ids(COUNT)[:-1], MODEL).engine_state is None
    assert store.session("s").prefix().engine_state == b"\0state\xff"
    write(store, "session/empty", ids(40, 2), cache(40, 2), engine_state=b"")
    assert store.session("empty").prefix().engine_state in (b"", None)


def test_a_restore_from_several_threads_at_once(match):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        for restored in pool.map(lambda _: match.restore(threads=1), range(12)):
            assert_same(restored, cache(COUNT))


def test_closing_while_others_read_takes_effect_after_them(store):
    from concurrent.futures import ThreadPoolExecutor

    write(store, "video/clip", ids(COUNT), cache(COUNT))

    def look(_):
        try:
            return store.longest_prefix(ids(COUNT), MODEL).token_count
        except reelkv.Closed:
            return None

    with ThreadPoolExecutor(8) as pool:
        results = pool.map(look, range(2000))
        store.close()
        assert set(results) <= {COUNT, None}
    with pytest.raises(reelkv.Closed, match="this store is closed"):
        store.models()


def test_a_match_outlives_its_store_but_cannot_be_restored(store):
    write(store, "video/clip", ids(COUNT), cache(COUNT))
    match = store.longest_prefix(ids(COUNT), MODEL)
    writer = store.writer("session/s", MODEL, "exact")
    store.close()
    assert match.token_count == COUNT and match.engine_state is None
    with pytest.raises(reelkv.Closed):
        match.restore()
    append(writer, Tokens(ids(40)), cache(40), 0)
    writer.finish()
    match.close()
    with pytest.raises(reelkv.Closed):
        match.lease()
