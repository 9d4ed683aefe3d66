"""Stores that the Swift command wrote, decoded here, against the files that it exports from them."""

import shutil
import struct

import lmdb
import numpy as np
import pytest

from reelkv.reader import NotStoredError, Store, verify
from reelkv.reader.records import NODERECORD_STRUCT
from reelkv.reader.store import newest_index, sealed
from reelkv.reader.values import BFLOAT16, FLOAT16, FLOAT32

from ..command import FIXTURES
from .support import PLAIN_PROFILES, TURNED_PROFILES, assert_decodes_as_exported, read_cache

VIDEO, CHAT = FIXTURES / "video.safetensors", FIXTURES / "chat-a.safetensors"


@pytest.fixture(scope="module", params=PLAIN_PROFILES + TURNED_PROFILES)
def profile(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def store(command, profile, tmp_path_factory):
    """The clip as a video, and a conversation as a session that grew turn by turn."""
    path = command.new_store(tmp_path_factory.mktemp(profile) / "store", FIXTURES / "smollm2.json")
    how = "--model", "model", "--profile", profile
    command(path, "import", VIDEO, *how, "--video", "clip")
    for end in read_cache(CHAT)["turn_offsets"].tolist():
        command(path, "import", CHAT, *how, "--session", "chat", "--tokens", f"0..<{end}")
    return path


@pytest.mark.parametrize("name", ["video/clip", "session/chat"])
@pytest.mark.parametrize("element_type", [BFLOAT16, FLOAT16, FLOAT32], ids=lambda kind: kind.name)
def test_python_decodes_what_swift_exports(command, store, profile, name, element_type):
    assert_decodes_as_exported(command, store, name, element_type, plain=profile in PLAIN_PROFILES)


def test_a_store_is_sound(store):
    with Store(store) as opened:
        assert verify(opened, decoding=True) == []


def test_heads_hold_the_files_tokens_frames_and_turns(store):
    video, chat = read_cache(VIDEO), read_cache(CHAT)
    with Store(store) as opened:
        clip, session = opened.head("video/clip"), opened.head("session/chat")
        assert opened.tokens(clip).ids == video["input_ids"][0].tolist()
        assert opened.tokens(session).ids == chat["input_ids"][0].tolist()
        assert [span.count for span in opened.tokens(session).media] == [12 * 64]
        assert [frame.first_token for frame in clip.frames] == video["frame_offsets"].tolist()
        assert np.float32([frame.seconds for frame in clip.frames]).tobytes() == video["frame_seconds"].tobytes()
        assert [turn.first_token for turn in session.turns][1:] == chat["turn_offsets"].tolist()[:-1]
        assert "source_sha256" in clip.provenance


def test_exact_caches_come_back_bit_for_bit(store, profile):
    exact = profile == "exact"
    with Store(store) as opened:
        # the session's first three tokens are the clip's, and so are their tensors
        for name, path, start in (("video/clip", VIDEO, 0), ("session/chat", CHAT, 3)):
            file, head = read_cache(path), opened.head(name)
            for layer in range(3):
                cache = opened.read(head, layer)
                # the first tokens, and those after the last full page, are exact under every profile
                tail = head.record.token_count // 256 * 256
                for tokens in [slice(start, None)] if exact else [slice(start, 4), slice(tail, None)]:
                    assert np.array_equal(cache.key[:, tokens], file[f"layers.{layer}.key"][0][:, tokens])
                    assert np.array_equal(cache.value[:, tokens], file[f"layers.{layer}.value"][0][:, tokens])


def test_what_is_not_there_is_said(store, tmp_path):
    with Store(store) as opened:
        for name, tenant in (("video/other", "default"), ("session/clip", "default"), ("video/clip", "nobody"), ("x", "default")):
            with pytest.raises(NotStoredError):
                opened.head(name, tenant)
        with pytest.raises(NotStoredError):
            opened.read(opened.head("video/clip"), 3)
    with pytest.raises(NotStoredError):
        Store(tmp_path)


def test_the_newest_index_file_is_the_one_that_is_read(store, tmp_path):
    """Of an index and its successors the highest number counts, beside lock files and copies that were not completed."""
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    with Store(copy) as opened:
        nodes = opened.items("node")
    for number in (2, 10):
        with lmdb.open(str(newest_index(copy)), subdir=False, max_dbs=16, map_size=1 << 28) as index:
            with open(copy / f"index.{number}.mdb", "wb") as successor:
                index.copyfd(successor.fileno(), compact=True)
        # the former one stays, as after a crash, and holds something else
        former_path = copy / ("index.mdb" if number == 2 else "index.2.mdb")
        with lmdb.open(str(former_path), subdir=False, max_dbs=16, map_size=1 << 28) as former:
            with former.begin(write=True) as transaction:
                transaction.drop(former.open_db(b"node", transaction, create=False), delete=False)
        assert newest_index(copy).name == f"index.{number}.mdb"
        for name in ("index.1.mdb", "index.02.mdb", "index.11.mdb-lock", "index.11.mdb-new", "index.x.mdb", "index.12.mdbx"):
            (copy / name).write_bytes(b"")
        with Store(copy) as opened:
            assert opened.items("node") == nodes
            assert verify(opened) == []
    assert newest_index(copy / "volumes") is None
    assert newest_index(copy / "nothing") is None


def test_the_copy_of_tenants_and_models_is_checked(store, tmp_path):
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    whole = (copy / "identity").read_bytes()
    damages = [whole[:-1], whole[:70], b"", whole[:80] + bytes([whole[80] ^ 1]) + whole[81:]]
    for damaged in damages:
        (copy / "identity").write_bytes(damaged)
        with Store(copy) as opened:
            assert [problem.partition(":")[0] for problem in verify(opened)] == ["identity"]
    (copy / "identity").unlink()
    with Store(copy) as opened:
        assert len(verify(opened)) == 1


def test_verification_finds_what_is_damaged(store, tmp_path):
    """A byte of the first page, a token of the second node, a reference count of the third: each is told by its node."""
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    with Store(copy) as opened:
        first, second, third = opened.chain(opened.head("video/clip"))[:3]
        encoding = first.node.best_encoding()
        key, image = struct.pack(">Q", encoding.page_id), opened.image(first.node).data
        nodes, numbers = dict(opened.items("node")), dict(opened.items("name"))
        nodes = {hash: nodes[number] for hash, number in numbers.items()}
    tokens = nodes[second.node.hash]
    record = third.node.record._replace(children=third.node.record.children + 1)
    damaged = {
        second.node.hash: tokens[:-1] + bytes([tokens[-1] ^ 1]),
        third.node.hash: NODERECORD_STRUCT.pack(*record) + nodes[third.node.hash][NODERECORD_STRUCT.size :],
    }
    with lmdb.open(str(copy / "volumes" / f"{encoding.volume_id:08x}.mdb"), subdir=False, map_size=1 << 28) as volume:
        with volume.begin(write=True) as transaction:
            transaction.put(key, image[:-1] + bytes([image[-1] ^ 1]))
    with lmdb.open(str(copy / "index.mdb"), subdir=False, max_dbs=16, map_size=1 << 28) as index:
        nodes = index.open_db(b"node", create=False)
        with index.begin(write=True, db=nodes) as transaction:
            for hash, value in damaged.items():
                transaction.put(numbers[hash], sealed("node", numbers[hash], value))
    with Store(copy) as opened:
        problems = verify(opened)
    names = {node.hash.hex(): name for node, name in ((first.node, "first"), (second.node, "second"), (third.node, "third"))}
    found = sorted((names[problem.split()[1].rstrip(":")], problem.partition(": ")[2]) for problem in problems)
    assert [name for name, _ in found] == ["first", "second", "second", "third"]
    for (_, message), word in zip(found, ["checksum", "image of its node", "chain hash", "counts"]):
        assert word in message
