"""Tokens as Python keeps them: what is taken, what is refused, slices, and what two sequences have in common."""

import numpy as np
import pytest

from reelkv import InvalidArgument, MediaSpan, Tokens

A, B = bytes(range(32)), bytes(32 - i for i in range(32))


def random_tokens(random: np.random.Generator, count: int) -> Tokens:
    """Text, with media of two digests in between, and now and then positions."""
    spans, at = [], 0
    while (first := at + int(random.integers(0, 20))) + 1 < count and len(spans) < 6:
        length = int(random.integers(1, min(20, count - first)))
        spans.append(MediaSpan([A, B][random.integers(2)], first, length, int(random.integers(0, 50))))
        at = first + length
    positions = random.integers(0, 99, (3, count)) if random.integers(2) else None
    return Tokens(random.integers(0, 50_000, count), spans, positions)


@pytest.mark.parametrize("make", [list, tuple, np.array, lambda ids: np.array([ids], np.int64)], ids=["list", "tuple", "numpy", "batch"])
def test_ids_come_in_any_shape(make):
    tokens = Tokens(make([3, 1, 4]))
    assert tokens.ids.tolist() == [3, 1, 4] and tokens.ids.dtype == np.int32


@pytest.mark.parametrize("ids", [[[1, 2], [3, 4]], [1.5], ["a"], [1 << 31], [[[1]]], [-(1 << 31) - 1], 7])
def test_what_is_no_sequence_of_ids_is_refused(ids):
    with pytest.raises(InvalidArgument):
        Tokens(ids)


def test_tokens_do_not_change_with_the_memory_they_came_from():
    ids = np.arange(5, dtype=np.int32)
    tokens = Tokens(ids)
    ids[0] = 9
    assert tokens.ids[0] == 0
    with pytest.raises(ValueError):
        tokens.ids[0] = 9


@pytest.mark.parametrize(
    "spans",
    [
        [MediaSpan(A, 2, 4), MediaSpan(A, 5, 1)],
        [MediaSpan(A, 6, 2), MediaSpan(B, 0, 2)],
        [MediaSpan(A, 8, 3)],
    ],
    ids=["overlap", "order", "beyond the end"],
)
def test_spans_must_stand_apart_and_within(spans):
    with pytest.raises(InvalidArgument, match="media span"):
        Tokens(range(10), spans)


@pytest.mark.parametrize("arguments", [(b"short", 0, 1), ("zz" * 32, 0, 1), (A, -1, 1), (A, 0, 0), (A, 0, 1, -1), (None, 0, 1)])
def test_a_span_is_checked(arguments):
    with pytest.raises(InvalidArgument):
        MediaSpan(*arguments)


def test_a_digest_comes_as_bytes_or_digits():
    assert MediaSpan(A.hex(), 0, 1) == MediaSpan(A, 0, 1) == MediaSpan(bytearray(A), 0, 1)


@pytest.mark.parametrize("shape", [(4,), (1, 4), (3, 4), (3, 1, 4)])
def test_positions_come_in_any_shape(shape):
    positions = Tokens(range(4), positions=np.arange(np.prod(shape)).reshape(shape)).positions
    assert positions.shape == (shape[0] if len(shape) > 1 else 1, 4)
    assert positions.ravel().tolist() == list(range(positions.size))


@pytest.mark.parametrize("shape", [(3,), (2, 4), (4, 4), (3, 2, 4), (1, 3)])
def test_positions_of_another_shape_are_refused(shape):
    with pytest.raises(InvalidArgument, match="position ids must be"):
        Tokens(range(4), positions=np.zeros(shape, int))


def test_slices_hold_what_the_whole_holds_there():
    random = np.random.default_rng(3)
    for _ in range(200):
        tokens = random_tokens(random, int(random.integers(1, 80)))
        start, stop = sorted(random.integers(0, len(tokens) + 1, 2).tolist())
        part = tokens[start:stop]
        assert part.ids.tolist() == tokens.ids[start:stop].tolist()
        assert (part.positions is None) == (tokens.positions is None)
        if part.positions is not None:
            assert np.array_equal(part.positions, tokens.positions[:, start:stop])
        assert described(part) == described(tokens)[start:stop]


def described(tokens: Tokens) -> list:
    """What each token stands for, one by one."""
    listed = tokens.ids.tolist()
    for span in tokens.media:
        for index in range(span.first_token, span.end):
            listed[index] = span.digest, span.media_offset + index - span.first_token
    return listed


def test_common_prefixes_are_those_of_the_tokens_one_by_one():
    random = np.random.default_rng(4)
    for _ in range(300):
        tokens = random_tokens(random, int(random.integers(1, 60)))
        other = random_tokens(random, int(random.integers(1, 60)))
        cut = int(random.integers(0, len(tokens) + 1))
        mixed = Tokens(
            [*tokens.ids[:cut], *other.ids],
            [*tokens[:cut].media, *(MediaSpan(s.digest, s.first_token + cut, s.count, s.media_offset) for s in other.media)],
            None if tokens.positions is None else np.concatenate([tokens.positions[:, :cut], random.integers(0, 99, (3, len(other)))], 1),
        )
        left, right = described(tokens), described(mixed)
        expected = 0
        while expected < min(len(left), len(right)):
            same_positions = tokens.positions is None or np.array_equal(
                tokens.positions[:, expected], mixed.positions[:, expected]
            )
            if left[expected] != right[expected] or not same_positions:
                break
            expected += 1
        assert tokens.common_prefix(mixed) == mixed.common_prefix(tokens) == expected
        assert expected >= cut
        assert (tokens == mixed) == (expected == len(tokens) == len(mixed))


def test_positions_that_count_up_are_no_positions():
    plain = Tokens(range(5))
    assert plain == Tokens(range(5), positions=np.arange(5)) == Tokens(range(5), positions=np.tile(np.arange(5), (3, 1)))
    assert plain.common_prefix(Tokens(range(5), positions=[0, 1, 2, 4, 5])) == 3


def test_placeholders_of_any_id_are_the_same_token():
    assert Tokens([1, 7, 7], [MediaSpan(A, 1, 2)]) == Tokens([1, -1, -1], [MediaSpan(A, 1, 2)])
    assert Tokens([1, 7, 7], [MediaSpan(A, 1, 2)]) != Tokens([1, 7, 7], [MediaSpan(B, 1, 2)])
    assert Tokens([1, 7, 7], [MediaSpan(A, 1, 2)]) != Tokens([1, 7, 7], [MediaSpan(A, 1, 2, media_offset=1)])


def test_empty_sequences_are_sequences():
    empty = Tokens([])
    assert len(empty) == 0 and empty == Tokens(np.empty((1, 0), np.int64)) and len(Tokens(range(3))[3:]) == 0
    with pytest.raises(InvalidArgument, match="step"):
        Tokens(range(3))[::2]
