"""Golden stores (schema/vectors/stores): each is read as the caches that lie beside it; that of version 4 with the key of its tenant."""

import pytest

from reelkv.reader import FormatError, KeyRequiredError, NotStoredError, Store, WrongKeyError, read_key, verify
from reelkv.reader.__main__ import main

from .support import VECTORS, distances, read_cache

STORES = VECTORS / "stores"
KEY, EARLIER_KEY = STORES / "v4.key", STORES / "v4-earlier.key"


def golden(version: int, keys=None) -> Store:
    # nobody writes it, and no lock file is to be left beside it
    return Store(STORES / f"v{version}", lock=False, keys=keys)


def assert_holds(store: Store, name: str, file_name: str, tenant: str):
    file, head = read_cache(STORES / file_name), store.head(name, tenant)
    assert store.tokens(head).ids == file["input_ids"][0].tolist()
    for layer in range(2):
        cache = store.read(head, layer)
        for decoded, kind in ((cache.key, "key"), (cache.value, "value")):
            assert distances(decoded, file[f"layers.{layer}.{kind}"][0]).max() <= (1 if "lossy" in name else 0)


@pytest.mark.parametrize("version, tenant", [(2, "default"), (3, "default"), (4, "acme")])
def test_a_golden_store_is_read(version, tenant):
    with golden(version, {"acme": read_key(KEY)} if version == 4 else None) as store:
        assert_holds(store, "video/v", "video.safetensors", tenant)
        assert_holds(store, "session/s", "session.safetensors", tenant)
        assert_holds(store, "session/lossy", f"v{version}-lossy.safetensors", tenant)
        assert [turn.first_token for turn in store.head("session/s", tenant).turns] == [70]
        assert "file" in store.head("session/s", tenant).provenance
        # a store of version 2 has no copy of its tenants
        assert version == 2 or verify(store, decoding=True) == []


def test_version_1_is_refused():
    with pytest.raises(FormatError):
        golden(1)


def test_two_data_keys_are_in_use():
    with golden(4, {"acme": read_key(KEY)}) as store:
        epochs = [segment.node.best_encoding().key_epoch for segment in store.chain(store.head("session/s", "acme"))]
    assert epochs[0] == 1 and epochs[-1] == 2


def test_without_the_key_names_are_listed_and_checksums_checked():
    with golden(4) as store:
        acme, default = store.tenants()
        assert (acme.is_encrypted, store.is_locked(acme), acme.salt) == (True, True, None)
        assert (default.is_encrypted, store.is_locked(default)) == (False, False)
        assert [(head.name, head.is_locked) for head in store.heads("session")] == [("lossy", True), ("s", True)]
        assert verify(store, decoding=True) == []
        assert_holds(store, "video/v", "video.safetensors", "default")
        head = store.head("video/v", "acme")
        assert head.provenance == {} and head.record.token_count == 70
        node = store.node(head.record.tip)
        assert node.tokens is None
        for read in (store.chain, store.tokens, lambda head: store.read(head, 0), lambda head: store.image(node)):
            with pytest.raises(KeyRequiredError, match="'acme' is encrypted: give its key"):
                read(head)


def test_another_key_than_the_tenants_opens_nothing(tmp_path):
    for key in (read_key(EARLIER_KEY), bytes(32)):
        with pytest.raises(WrongKeyError, match="not the key of tenant 'acme'"):
            golden(4, {"acme": key})
    key = read_key(KEY)
    with pytest.raises(ValueError, match="32 bytes"):
        golden(4, {"acme": key[:31]})
    with pytest.raises(ValueError, match="not encrypted"):
        golden(4, {"default": key})
    with pytest.raises(NotStoredError):
        golden(4, {"nobody": key})
    for content in (b"", key[:31], key.hex().encode()[:-1], b"z" * 64):
        (tmp_path / "key").write_bytes(content)
        with pytest.raises(ValueError, match="no key file"):
            read_key(tmp_path / "key")
    (tmp_path / "key").write_bytes(key)
    assert read_key(tmp_path / "key") == key


def test_the_command_says_what_is_locked(capsys):
    command = [str(STORES / "v4"), "--no-lock", "--verify"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "tenant acme: encrypted, locked" in told and "session/s: tenant acme, model tiny, 90 tokens, locked" in told
    assert told.endswith("sound, as far as can be told without the keys of acme\n")
    assert main([*command, "--key-file", f"acme={KEY}"]) == 0
    told = capsys.readouterr().out
    assert "locked" not in told and told.endswith("sound\n") and "90 tokens in 4 pages and pieces" in told
    assert main([*command, "--key-file", f"acme={EARLIER_KEY}"]) == 1
    assert capsys.readouterr().err == "error: this is not the key of tenant 'acme'\n"
    with pytest.raises(SystemExit):
        main([*command, "--key-file", "acme=nothing"])
