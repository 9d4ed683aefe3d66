import struct

import pytest

from reelkv.reader.chain import ChainHasher
from reelkv.reader.errors import FormatError
from reelkv.reader.tokens import MediaSpan, Tokens

DIGEST = bytes(range(32))


def text(ids, width=2):
    body = b"".join(value.to_bytes(width, "little") for value in ids)
    return struct.pack("<BBI", 1, width, len(ids)) + body


def media(offset, count):
    return struct.pack("<BII", 2, offset, count) + DIGEST


def test_runs_become_ids_and_spans():
    tokens = Tokens.parse(text([1, 2]) + media(64, 3) + text([70_000, 5], width=3) + text([2**31 - 1], width=4))
    assert tokens.ids == [1, 2, -1, -1, -1, 70_000, 5, 2**31 - 1]
    assert tokens.media == [MediaSpan(DIGEST, first=2, count=3, offset=64)]
    assert tokens.positions is None


def test_positions_are_streams_of_one_value_a_token():
    data = text([7, 8]) + struct.pack("<BBI6i", 3, 3, 2, 0, 1, 10, 11, -5, 6)
    assert Tokens.parse(data).positions.tolist() == [[0, 1], [10, 11], [-5, 6]]


@pytest.mark.parametrize(
    "data",
    [
        b"\x09",
        text([1, 2])[:-1],
        media(0, 1)[:-1],
        media(0, 0),
        struct.pack("<BBI", 1, 5, 1) + bytes(5),
        struct.pack("<BBI", 1, 2, 0),
        text([1]) + struct.pack("<BBI2i", 3, 1, 2, 0, 1),
        text([1]) + struct.pack("<BBI", 3, 1, 1 << 30),
    ],
    ids=["tag", "text cut", "media cut", "empty media", "width", "empty text", "too many positions", "positions cut"],
)
def test_what_is_not_canonical_is_refused(data):
    with pytest.raises(FormatError):
        Tokens.parse(data)


def test_a_hash_depends_on_everything_it_names():
    base = dict(salt=bytes(32), model_bytes=b"model", page_tokens=256)
    roots = {ChainHasher(**base).root}
    roots |= {ChainHasher(**(base | change)).root for change in ({"salt": DIGEST}, {"model_bytes": b"m"}, {"page_tokens": 32})}
    assert len(roots) == 4
    hasher = ChainHasher(**base)
    names = {
        hasher.page(hasher.root, text([1])),
        hasher.page(hasher.root, text([2])),
        hasher.page(DIGEST, text([1])),
        hasher.piece(hasher.root, 0, text([1])),
        hasher.piece(hasher.root, 1, text([1])),
    }
    assert len(names) == 5
