"""Stores with encrypted tenants that the Swift command and the library wrote: read with the key, checked without, and every change noticed."""

import base64
import shutil
import struct
import sys

import lmdb
import numpy as np
import pytest
import xxhash

from reelkv.reader import ChecksumError, FormatError, KeyRequiredError, Store, read_key, verify
from reelkv.reader.index import SEALED_MEDIA, TOKENS_SEALED
from reelkv.reader.records import NODERECORD_STRUCT, SEALEDCHUNK_STRUCT, SEALEDIMAGEHEADER_STRUCT, SealedImageHeader
from reelkv.reader.sealing import AUTHENTICATED_BYTES, SealedImage, TenantKeys, derived
from reelkv.reader.store import sealed
from reelkv.reader.tokens import Tokens
from reelkv.reader.values import BFLOAT16, FLOAT32

from ..command import FIXTURES
from .support import assert_decodes_as_exported, read_cache

VIDEO, CHAT = FIXTURES / "video.safetensors", FIXTURES / "chat-a.safetensors"


@pytest.fixture(scope="module")
def key_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "acme.key"
    path.write_bytes(bytes(range(100, 132)).hex().encode() + b"\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module", params=["exact", "vidkv-1.5-1.58"])
def store(command, key_file, request, tmp_path_factory):
    """An encrypted tenant's clip, and its conversation that grew turn by turn; the clip once more for the default tenant."""
    path = command.new_store(tmp_path_factory.mktemp("encrypted") / "store", FIXTURES / "smollm2.json")
    command(path, "tenant", "add", "acme", "--new-key-file", key_file)
    how = "--model", "model", "--profile", request.param
    acme = "--tenant", "acme", "--key-file", f"acme={key_file}"
    command(path, "import", VIDEO, *how, "--video", "clip", *acme)
    for end in read_cache(CHAT)["turn_offsets"].tolist():
        command(path, "import", CHAT, *how, "--session", "chat", "--tokens", f"0..<{end}", *acme)
    command(path, "import", VIDEO, *how, "--video", "clip")
    return path


@pytest.fixture
def copy(store, tmp_path):
    shutil.copytree(store, tmp_path / "store")
    return tmp_path / "store"


def unlocked(path, key_file) -> Store:
    return Store(path, keys={"acme": read_key(key_file)})


@pytest.mark.parametrize("name", ["video/clip", "session/chat"])
@pytest.mark.parametrize("element_type", [BFLOAT16, FLOAT32], ids=lambda kind: kind.name)
def test_python_decodes_what_swift_exports(command, store, key_file, name, element_type):
    assert_decodes_as_exported(command, store, name, element_type, plain=False, tenant="acme", key_file=key_file)


def test_a_store_is_sound_with_the_key_and_without(store, key_file):
    with Store(store) as opened:
        assert verify(opened, decoding=True) == []
        with pytest.raises(KeyRequiredError):
            opened.tokens(opened.head("video/clip", "acme"))
    with unlocked(store, key_file) as opened:
        assert verify(opened, decoding=True) == []
        clip, chat = opened.head("video/clip", "acme"), opened.head("session/chat", "acme")
        assert opened.tokens(chat).ids == read_cache(CHAT)["input_ids"][0].tolist()
        assert [frame.first_token for frame in clip.frames] == read_cache(VIDEO)["frame_offsets"].tolist()
        assert "source_sha256" in clip.provenance and len(chat.turns) > 1
        # what is sealed under two tenants' names is one sequence to none of them
        assert opened.head("video/clip").record.tip != clip.record.tip


def test_another_key_and_pages_that_are_sealed_anew(command, copy, key_file, tmp_path):
    new = tmp_path / "new.key"
    new.write_bytes(bytes(range(32)).hex().encode())
    new.chmod(0o600)
    command(copy, "tenant", "rekey", "acme", "--key-file", f"acme={key_file}", "--new-key-file", new)
    assert_decodes_as_exported(command, copy, "session/chat", BFLOAT16, plain=False, tenant="acme", key_file=new)
    with unlocked(copy, new) as opened:
        assert verify(opened) == []
    command(copy, "compact", "--reseal", "--key-file", f"acme={new}", "--quiet")
    assert_decodes_as_exported(command, copy, "session/chat", BFLOAT16, plain=False, tenant="acme", key_file=new)
    with unlocked(copy, new) as opened:
        assert verify(opened, decoding=True) == []
        assert {segment.node.best_encoding().key_epoch for segment in opened.chain(opened.head("session/chat", "acme"))} == {2}


def test_state_and_unfinished_sequences_are_opened(library, tmp_path):
    from ..core.caches import MODEL, cache, ids, write
    import reelkv

    key = bytes(range(32))
    with reelkv.Store.create(tmp_path / "store", page_tokens=32) as writing:
        writing.add_model(MODEL)
        writing.create_tenant("acme", key)
        write(writing, "session/s", ids(100), cache(100), tenant="acme", engine_state=b"rope deltas", provenance={"a": "b"})
        writer = writing.writer("session/t", MODEL, "exact", tenant="acme")
        writer.append(ids(64, seed=2), cache(64, seed=2))
        writer.flush()
        with Store(tmp_path / "store", keys={"acme": key}) as opened:
            head = opened.head("session/s", "acme")
            assert opened.engine_state(head.record.tip) == b"rope deltas" and head.provenance == {"a": "b"}
            (building,) = [opened.parse_head("building", name, value) for name, value in opened.items("building")]
            assert (building.name, building.record.token_count, building.is_locked) == ("t", 64, False)
            assert verify(opened, decoding=True) == []
        with Store(tmp_path / "store") as opened:
            assert verify(opened) == []
            with pytest.raises(KeyRequiredError):
                opened.engine_state(head.record.tip)


def test_no_command_tells_the_salt(command, store, key_file):
    """Nor a data key. The salt of an encrypted tenant is in its secret; that of another in its record."""
    with unlocked(store, key_file) as opened:
        acme, default = opened.tenants()
        keys = opened._keys_of(acme.tenant_id)
        secrets = [keys.salt, default.salt, keys.data_key(1), read_key(key_file)]
    told = ""
    for words in (
        ["tenant", "ls"], ["ls"], ["show", "video/clip", "--tenant", "acme"], ["show", "video/clip"], ["stats"], ["verify"],
        ["verify", "--repair", "--dry-run"], ["quota"], ["model", "ls"], ["model", "show", "model"], ["evict", "--to", "0", "--dry-run"],
        ["match", CHAT, "--model", "model", "--tenant", "acme"], ["scrub"], ["compact", "--dry-run"],
    ):  # fmt: skip
        for options in ([], ["--json"]):
            told += command(store, *words, *options, "--key-file", f"acme={key_file}")
    assert len(told) > 5000
    for secret in secrets:
        assert len(set(secret)) > 16
        for text in traces(secret):
            assert text not in told and text not in told.lower()
    # the search finds what it is for
    assert any(text in base64.b64encode(b"x" + secrets[0]).decode() for text in traces(secrets[0]))


def traces(secret: bytes) -> list[str]:
    parts = [secret[start : start + 12] for start in range(len(secret) - 11)]
    return [part.hex() for part in parts] + [base64.b64encode(part).decode() for part in parts]


def test_pynacl_is_needed_for_keys_alone(store, key_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "nacl", None)
    with Store(store) as opened:
        opened.read(opened.head("video/clip"), 0)
        assert verify(opened) == []
    with pytest.raises(ImportError, match=r"pip install 'reelkv\[reader\]'"):
        unlocked(store, key_file)


# What is changed


def image_of(opened: Store) -> tuple[bytes, TenantKeys]:
    node = opened.chain(opened.head("video/clip", "acme"))[1].node
    data = opened._image_bytes(node.best_encoding())
    return data, opened._keys_of(node.record.tenant_id)


def resealed(data: bytearray) -> bytes:
    """With checksums that fit the bytes, as whoever has no key could make them."""
    header = SealedImageHeader.read(data)
    table_end = SEALEDIMAGEHEADER_STRUCT.size + header.chunk_count * SEALEDCHUNK_STRUCT.size
    at = table_end
    for entry in range(SEALEDIMAGEHEADER_STRUCT.size, table_end, SEALEDCHUNK_STRUCT.size):
        (count,) = struct.unpack_from("<Q", data, entry)
        struct.pack_into("<Q", data, entry + 8, xxhash.xxh3_64_intdigest(data[at : at + count]))
        at += count
    checked = bytes(data[:AUTHENTICATED_BYTES] + data[SEALEDIMAGEHEADER_STRUCT.size : table_end])
    struct.pack_into("<Q", data, AUTHENTICATED_BYTES, xxhash.xxh3_64_intdigest(checked))
    return bytes(data)


def test_a_flipped_bit_of_a_sealed_image_is_found_without_the_key(store, key_file):
    with unlocked(store, key_file) as opened:
        data, _ = image_of(opened)
    SealedImage(data).verify()
    assert resealed(bytearray(data)) == data
    random = np.random.default_rng(3)
    for at in [*range(SEALEDIMAGEHEADER_STRUCT.size + 3 * SEALEDCHUNK_STRUCT.size), *random.integers(0, len(data), 300)]:
        changed = bytearray(data)
        changed[at] ^= 1 << random.integers(8)
        with pytest.raises(FormatError):
            SealedImage(bytes(changed)).verify()
    for length in (0, 7, 95, 96, 200, len(data) - 1):
        with pytest.raises(FormatError):
            SealedImage(data[:length])


def test_what_was_changed_together_with_its_checksums_is_found_with_the_key(store, key_file):
    with unlocked(store, key_file) as opened:
        data, keys = image_of(opened)
    SealedImage(data).open(keys)
    table = range(SEALEDIMAGEHEADER_STRUCT.size, SEALEDIMAGEHEADER_STRUCT.size + SEALEDCHUNK_STRUCT.size)
    # tenant, chain hash, nonce; the first chunk's tag; a byte of the first chunk and of the last
    for at in (16, 40, 64, 79, table[16], table[31], 600, len(data) - 1):
        changed = bytearray(data)
        changed[at] ^= 1
        image = SealedImage(resealed(changed))
        image.verify()
        with pytest.raises(FormatError, match="tag"):
            image.open(keys)
    # data keys that the tenant does not have any more
    changed = bytearray(data)
    changed[12] ^= 4
    with pytest.raises(KeyRequiredError):
        SealedImage(resealed(changed)).open(keys)


def change(path, database, key, value):
    with lmdb.open(str(path / "index.mdb"), subdir=False, max_dbs=32, map_size=1 << 28) as index:
        opened = index.open_db(database.encode(), create=False)
        with index.begin(write=True, db=opened) as transaction:
            transaction.put(key, sealed(database, key, value))


@pytest.mark.parametrize("database, words", [("node", "tag is not right"), ("session", "tag is not right"), ("tenant", None)])
def test_a_changed_value_of_the_index_is_found_with_the_key(copy, key_file, database, words):
    with Store(copy) as opened:
        key, value = opened.items(database)[0]
    change(copy, database, key, value[:-1] + bytes([value[-1] ^ 1]))
    if words is None:
        with pytest.raises(PermissionError):
            unlocked(copy, key_file)
        return
    with Store(copy) as opened:
        assert verify(opened) == []
    with unlocked(copy, key_file) as opened:
        assert any(words in problem for problem in verify(opened))


def test_what_is_sealed_for_one_place_opens_at_no_other(copy, key_file):
    """A session's details under the name of another: its record says the same, and only the place differs."""
    with Store(copy) as opened:
        ((key, value),) = opened.items("session")
    change(copy, "session", key + b"-2", value)
    with unlocked(copy, key_file) as opened:
        with pytest.raises(FormatError, match="tag is not right"):
            opened.heads("session")


def change_image(path, encoding, data: bytes):
    with lmdb.open(str(path / "volumes" / f"{encoding.volume_id:08x}.mdb"), subdir=False, map_size=1 << 28) as volume:
        with volume.begin(write=True) as transaction:
            transaction.put(struct.pack(">Q", encoding.page_id), data.ljust(encoding.image_bytes, b"\0"))


def test_a_page_in_the_clear_is_no_encrypted_tenants(copy, key_file):
    """Whoever may write the store cannot pass pages of their own off as an encrypted tenant's."""
    with unlocked(copy, key_file) as opened:
        node = opened.chain(opened.head("video/clip", "acme"))[0].node
        plain = opened.image(node).data
    change_image(copy, node.best_encoding(), plain)
    with unlocked(copy, key_file) as opened:
        with pytest.raises(FormatError, match="no sealed page image"):
            opened.image(node)
    with Store(copy) as opened:
        assert any("no sealed page image" in problem for problem in verify(opened))


@pytest.mark.parametrize("at", [12, 16, 32], ids=["epoch", "tenant", "chain hash"])
def test_an_image_that_says_it_is_another_pages_is_not_taken(copy, key_file, at):
    with unlocked(copy, key_file) as opened:
        node = opened.chain(opened.head("video/clip", "acme"))[1].node
        changed = bytearray(opened._image_bytes(node.best_encoding()))
    changed[at] ^= 2
    change_image(copy, node.best_encoding(), resealed(changed))
    with Store(copy) as opened:
        (problem,) = verify(opened)
    assert node.hash.hex() in problem and "is not the image of its node" in problem


def test_a_tenants_record_that_is_cut_is_refused(copy, key_file):
    with Store(copy) as opened:
        key, value = opened.items("tenant")[0]
    for cut in (value[:-1], value[:64], value[:40], value + b"x"):
        change(copy, "tenant", key, cut)
        with pytest.raises(FormatError, match="the record of tenant 'acme'"):
            unlocked(copy, key_file)


def test_a_damaged_page_is_found_by_who_has_no_key(copy, key_file):
    with unlocked(copy, key_file) as opened:
        node = opened.chain(opened.head("video/clip", "acme"))[1].node
        data = opened._image_bytes(node.best_encoding())
    change_image(copy, node.best_encoding(), data[:-1] + bytes([data[-1] ^ 1]))
    with Store(copy) as opened:
        (problem,) = verify(opened)
    assert node.hash.hex() in problem and "does not match its checksum" in problem


def test_checksum_errors_are_told_from_others(store, key_file):
    with unlocked(store, key_file) as opened:
        data, _ = image_of(opened)
    changed = bytearray(data)
    changed[-1] ^= 1
    with pytest.raises(ChecksumError, match="does not match its checksum"):
        SealedImage(bytes(changed)).verify()


# What whoever has the key must not write


def rewritten(opened: Store, record_of, content_of=lambda node: node.content) -> tuple[bytes, bytes]:
    """The key and value of an encrypted tenant's node, with another record or content."""
    number, value = opened.items("node")[0]
    node = opened.parse_node(value)
    content = content_of(node)
    record = record_of(node.record)._replace(token_bytes=len(content))
    encodings = value[NODERECORD_STRUCT.size : len(value) - len(node.content)]
    return number, NODERECORD_STRUCT.pack(*record) + encodings + content


def problems_with(copy, key_file, *changes) -> list[str]:
    with unlocked(copy, key_file) as opened:
        number, value = rewritten(opened, *changes)
    change(copy, "node", number, value)
    with unlocked(copy, key_file) as opened:
        return verify(opened)


def test_flags_that_do_not_say_what_is_sealed_are_found(copy, key_file):
    problems = problems_with(copy, key_file, lambda record: record._replace(flags=record.flags ^ SEALED_MEDIA))
    assert any("whether it holds media" in problem for problem in problems), problems


def test_tokens_in_the_clear_are_no_encrypted_tenants(copy, key_file):
    problems = problems_with(
        copy, key_file, lambda record: record._replace(flags=record.flags & ~TOKENS_SEALED), lambda node: node.tokens
    )
    assert any("the other way round" in problem for problem in problems), problems


def test_an_order_key_that_is_not_blinded_is_found(copy, key_file):
    import nacl.bindings

    with unlocked(copy, key_file) as opened:
        keys = opened._keys_of(opened.tenants()[0].tenant_id)

    def with_order_in_the_clear(node):
        order, nonce = Tokens.parse(node.tokens).order_key(), bytes(24)
        key = derived(keys.data_key(1), b"rkvindex")
        made = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(node.tokens, order + node.place, nonce, key)
        return struct.pack("<II", 1, len(order)) + nonce + made[-16:] + order + made[:-16]

    problems = problems_with(copy, key_file, lambda record: record, with_order_in_the_clear)
    assert any("its order key is not that of its tokens" in problem for problem in problems), problems
