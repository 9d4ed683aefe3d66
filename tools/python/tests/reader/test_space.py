"""Stores that are bounded: pins, eviction, and the records that say what may go."""

import shutil
import struct

import lmdb
import pytest

from reelkv.reader import Store, verify
from reelkv.reader.index import PINNED, Leaf, parse_account, parse_usage
from reelkv.reader.store import sealed
from reelkv.reader.records import ACCOUNTRECORD_STRUCT, NODERECORD_STRUCT, USAGERECORD_STRUCT, NodeRecord

from ..command import FIXTURES

A, B = FIXTURES / "chat-a.safetensors", FIXTURES / "chat-b.safetensors"


@pytest.fixture(scope="module")
def store(command, tmp_path_factory):
    """A pinned video; a session that goes on from it; and another tenant's session."""
    path = command.new_store(tmp_path_factory.mktemp("space") / "store", FIXTURES / "smollm2.json", "--page-tokens", 64)
    how = "--model", "model", "--profile", "exact"
    command(path, "import", A, *how, "--video", "a", "--tokens", "0..<780")
    command(path, "import", B, *how, "--session", "b")
    command(path, "import", B, *how, "--session", "c", "--tenant", "acme")
    return path


def copied(store, tmp_path):
    shutil.copytree(store, tmp_path / "store")
    return tmp_path / "store"


def check(path):
    with Store(path) as opened:
        assert verify(opened) == []
        return opened.items("leaf"), {name: len(opened.items(name)) for name in ("node", "tip", "account", "video", "session")}


def change(path, database, key, value):
    """Puts one value, or removes the key where it is None."""
    with lmdb.open(str(path / "index.mdb"), subdir=False, max_dbs=32, map_size=1 << 28) as index:
        opened = index.open_db(database.encode(), create=False)
        with index.begin(write=True, db=opened) as transaction:
            transaction.delete(key) if value is None else transaction.put(key, sealed(database, key, value))


def test_the_records_of_a_store_agree(store):
    leaves, counts = check(store)
    assert (len(leaves), counts["tip"], counts["account"]) == (2, 3, 2)
    with Store(store) as opened:
        assert opened.head("video/a").record.flags & PINNED
        assert not opened.head("session/b").record.flags & PINNED
        tips = {opened.head("session/b").record.tip, opened.head("session/c", tenant="acme").record.tip}
        assert {Leaf.parse(key).hash for key, _ in leaves} == tips


def test_what_is_unpinned_becomes_a_leaf_and_what_is_evicted_is_gone(command, store, tmp_path):
    path = copied(store, tmp_path)
    command(path, "pin", "session/b")
    assert len(check(path)[0]) == 1
    command(path, "unpin", "session/b", "video/a")
    command(path, "quota", "set", "--ttl", "7d", "--policy", "lru")
    before = check(path)[1]
    command(path, "quota", "set", "--tenant", "acme", "--bytes", "1MiB")
    after = check(path)[1]
    assert after["node"] < before["node"] and after["session"] == before["session"] - 1
    command(path, "evict", "--to", 0)
    assert check(path) == ([], {"node": 0, "tip": 0, "account": 0, "video": 0, "session": 0})


def damaged(opened, what):
    """A database, key and value that make one thing untrue."""
    leaf_key, used = opened.items("leaf")[0]
    leaf = Leaf.parse(leaf_key)
    usage = parse_usage(dict(opened.items("usage"))[leaf.hash])
    tip_key = opened.items("tip")[0][0]
    account_key, account = opened.items("account")[0]
    number = dict(opened.items("name"))[leaf.hash]
    node = dict(opened.items("node"))[number]
    pinned = NODERECORD_STRUCT.pack(*NodeRecord.read(node)._replace(pins=1)) + node[NODERECORD_STRUCT.size :]
    account = parse_account(account)._replace(live_bytes=1)
    return {
        "pins counted wrong": ("node", number, pinned, "counts"),
        "number of another": ("name", leaf.hash, struct.pack(">Q", 1 << 40), "of another node"),
        "name missing": ("name", leaf.hash, None, "not found by its hash"),
        "leaf missing": ("leaf", leaf_key, None, "listed 0 times for eviction"),
        "leaf of no node": ("leaf", leaf_key[:12] + bytes(32), used, "not there"),
        "leaf at another rank": ("leaf", struct.pack(">IQ", leaf.tenant_id, leaf.rank + 1) + leaf.hash, used, "rank"),
        "usage of another rank": ("usage", leaf.hash, USAGERECORD_STRUCT.pack(*usage._replace(rank=usage.rank + 1)), "rank"),
        "usage cut": ("usage", leaf.hash, b"short", "damaged"),
        "usage of no node": ("usage", bytes(32), USAGERECORD_STRUCT.pack(*usage), "not stored"),
        "tip missing": ("tip", tip_key, None, "not listed"),
        "tip of no sequence": ("tip", tip_key + b"x", b"", "no sequence"),
        "account wrong": ("account", account_key, ACCOUNTRECORD_STRUCT.pack(*account), "counted wrong"),
        "account missing": ("account", account_key, None, "counted wrong"),
    }[what]


@pytest.mark.parametrize(
    "what",
    [
        *("pins counted wrong", "number of another", "name missing"),
        *("leaf missing", "leaf of no node", "leaf at another rank"),
        *("usage of another rank", "usage cut", "usage of no node"),
        *("tip missing", "tip of no sequence"),
        *("account wrong", "account missing"),
    ],
)
def test_verification_finds_what_does_not_agree(store, tmp_path, what):
    path = copied(store, tmp_path)
    with Store(path) as opened:
        database, key, value, words = damaged(opened, what)
    change(path, database, key, value)
    with Store(path) as opened:
        problems = verify(opened)
    assert any(words in problem for problem in problems), problems
