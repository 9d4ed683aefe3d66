"""Opening, models, settings, space, and what a whole store tells of itself."""

import threading

import pytest

import reelkv
from reelkv import InvalidArgument, Model, NotAStore, NotFound, Store, StoreExists, reader

from .caches import MODEL, assert_same, cache, ids, spec, write


def test_opening(library, tmp_path):
    path = tmp_path / "store"
    with pytest.raises(NotAStore):
        Store(path)
    with Store.create(path, page_tokens=64, volume_bytes_max=1 << 20) as store:
        assert store.page_tokens == 64 and store.path == str(path)
    store.close()
    with pytest.raises(StoreExists):
        Store.create(path)
    with Store(str(path)) as store, Store(path, read_only=True) as reader:
        store.add_model(MODEL)
        assert [model.name for model in reader.models()] == [MODEL.name]
        with pytest.raises(reelkv.ReadOnly):
            reader.add_model(spec("float16"))
    with Store.open_or_create(path) as store:
        assert len(store.models()) == 1
    with Store.open_or_create(tmp_path / "new") as store:
        assert store.page_tokens == 256
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("something else")
    with pytest.raises(reelkv.Error):
        Store.open_or_create(tmp_path / "other")


@pytest.mark.parametrize("arguments", [dict(page_tokens=33), dict(page_tokens=-32), dict(page_tokens=1 << 40), dict(volume_bytes_max=-1)])
def test_impossible_options_are_told(library, tmp_path, arguments):
    with pytest.raises(InvalidArgument):
        Store.create(tmp_path / "store", **arguments)


def test_relaxed_durability(library, tmp_path):
    with Store.open_or_create(tmp_path / "store", relaxed=True) as store:
        store.add_model(MODEL)
        write(store, "session/s", ids(300), cache(300))
        store.sync()
        with Store(tmp_path / "store") as same:  # as it is open already
            assert same.session("s").token_count == 300
    with Store(tmp_path / "store") as durable:
        durable.sync()
        assert durable.longest_prefix(ids(300), MODEL).is_exact
    with pytest.raises(InvalidArgument):
        Store(tmp_path / "store", read_only=True, relaxed=True)


def test_models(store):
    assert store.add_model(MODEL) == []
    (model,) = store.models()
    assert (model.name, model.fingerprint, model.dtype, len(model.layers)) == (MODEL.name, MODEL.fingerprint, "float32", 3)
    assert model.layers[0].kv_heads == 2 and model.layers[0].sliding_window is None and all(model.rotated)
    with pytest.raises(reelkv.AlreadyExists):
        store.add_model(spec(fingerprint="ff" * 32))
    warnings = store.add_model(Model.from_spec({"layers": 1, "kv_heads": 1, "head_dim": 8, "dtype": "float32"}, "odd", "ab" * 32))
    assert len(warnings) == 1 and "rope" in warnings[0]
    write(store, "session/s", ids(40), cache(40))
    with pytest.raises(reelkv.InUse):
        store.remove_model(model)
    store.remove_model(model, deleting_sequences=True)
    assert [left.name for left in store.models()] == ["odd"] and store.sessions() == []
    with pytest.raises(NotFound):
        store.remove_model("nobody")


def test_a_config_of_hugging_face(store):
    config = {
        "model_type": "qwen2_5_vl",
        "text_config": {
            "model_type": "qwen2_5_vl_text", "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        },
    }  # fmt: skip
    model = Model.from_hf_config(config, weights="ab" * 32, dtype="bfloat16")
    assert store.add_model(model) == []
    stored = next(found for found in store.models() if found.name == model.name)
    assert stored.dtype == "bfloat16" and len(stored.layers) == 4 and all(stored.rotated)
    with pytest.raises(InvalidArgument, match="dtype"):
        store.add_model(Model.from_hf_config(config, weights="ab" * 32, name="untyped"))
    with pytest.raises(InvalidArgument, match="num_hidden_layers"):
        store.add_model(Model.from_hf_config({"model_type": "llava", "text_config": {}}, weights="ab" * 32, dtype="float16"))


def test_settings_change_one_by_one(store):
    assert store.settings() == reelkv.Settings(None, None, None, "adaptive")
    store.update_settings(quota_bytes=1 << 30, policy="lru")
    changed = store.update_settings(unused_seconds_max=3600)
    assert changed == store.settings() == reelkv.Settings(1 << 30, None, 3600, "lru")
    assert store.update_settings(quota_bytes=0).quota_bytes is None
    for bad in (dict(policy="best"), dict(quota_bytes=-1), dict(quota_bytes=1 << 64), dict(free_bytes_min=1.5)):
        with pytest.raises(InvalidArgument):
            store.update_settings(**bad)


def test_space_is_given_back(store):
    for seed in range(4):
        write(store, f"session/{seed}", ids(320, seed), cache(320, seed))
    write(store, "video/pinned", ids(64, 9), cache(64, 9))
    lease = store.session("3").prefix().lease()
    match = store.longest_prefix(ids(320, 0), MODEL)
    assert store.evict(0) > 0
    assert [session.name for session in store.sessions()] == ["3"]
    assert store.compact() > 0
    with pytest.raises(reelkv.PageUnavailable):
        match.restore()
    with pytest.raises(reelkv.PageUnavailable):
        with match.restoring() as job:
            for _ in job:
                pass
    lease.close()
    assert store.evict(0) > 0
    assert store.sessions() == [] and store.video("pinned").prefix().token_count == 64


def test_a_quota_is_told(store):
    store.update_settings(quota_bytes=1 << 20)
    with pytest.raises(reelkv.QuotaExceeded) as told:
        write(store, "video/long", ids(5000), cache(5000))
    assert told.value.code == "quota-exceeded" and str(told.value)


def test_a_store_tells_of_itself(store):
    write(store, "video/v", ids(100), cache(100))
    store.longest_prefix(ids(100), MODEL)
    statistics = store.statistics()
    assert isinstance(statistics, dict) and statistics
    found = store.verify()
    assert found.is_sound and found.pages > 0 and found.problems == ()


def test_damage_is_told_not_raised(store, tmp_path):
    write(store, "video/v", ids(640), cache(640))
    store.close()
    (volume,) = (tmp_path / "store" / "volumes").glob("*.mdb")
    data = bytearray(volume.read_bytes())
    # the images' own bytes: behind the file's first pages, in whatever is not zero
    for at in range(5 * 4096 + 2000, len(data) - 4096, 4096):
        if any(data[at : at + 64]):
            data[at] ^= 255
    volume.write_bytes(data)
    with Store(tmp_path / "store") as damaged:
        found = damaged.verify()
        assert not found.is_sound and found.problems and found.problems[0].message


def test_a_repair_mends_what_a_check_finds(store, tmp_path):
    written = cache(640)
    write(store, "video/v", ids(640), written)
    path = tmp_path / "store"
    (path / "identity").unlink()
    found = store.verify(pages="skip")
    assert not found.is_sound and found.pages == 0 and [problem.kind for problem in found.problems] == ["identity"]
    assert not store.verify(dry_run=True).is_sound and not (path / "identity").exists()
    assert store.verify(repair=True).is_sound and (path / "identity").exists()
    assert store.verify(pages="quick").is_sound
    with pytest.raises(InvalidArgument):
        store.verify(pages="some")
    with pytest.raises(InvalidArgument):
        reelkv.rebuild(path)


def test_a_lost_index_is_made_anew(store, tmp_path):
    written = cache(640)
    write(store, "video/v", ids(640), written)
    store.close()
    path = tmp_path / "store"
    for file in path.glob("index.*"):
        file.unlink()
    with pytest.raises(reelkv.Damaged, match="--repair"):
        Store(path)
    found = reelkv.rebuild(path)
    assert found.is_sound and found.changes
    with Store(path) as again:
        assert again.longest_prefix(ids(640), MODEL).token_count == 640
        assert again.verify().is_sound


def test_a_scrub_reads_all_pages_in_steps_or_at_once(store):
    write(store, "video/v", ids(640), cache(640))
    whole = store.scrub(max_bytes_per_second=None)
    assert whole.is_finished and whole.pages > 1 and whole.damaged == 0
    pages = 0
    while not (step := store.scrub_step(max_bytes=1)).is_finished:
        assert step.pages == 1
        pages += step.pages
    assert pages + step.pages == whole.pages


def test_errors_are_of_their_kind_and_say_what_to_do(store):
    write(store, "video/v", ids(40), cache(40))
    with pytest.raises(LookupError, match="nobody"):
        store.session("nobody")
    with pytest.raises(ValueError):
        store.update_settings(policy="best")
    try:
        store.video("nobody")
    except reelkv.Error as error:
        assert error.code == "not-found" and len(str(error)) > 20


def test_messages_belong_to_their_thread(store):
    write(store, "video/v", ids(40), cache(40))
    messages: dict[str, set[str]] = {}

    def fail(name: str) -> None:
        for _ in range(200):
            try:
                store.session(name)
            except NotFound as error:
                messages.setdefault(name, set()).add(str(error))

    threads = [threading.Thread(target=fail, args=(f"name-{index}",)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(messages) == 4 and all(len(told) == 1 and name in next(iter(told)) for name, told in messages.items())


def test_tenants_are_listed(store, tmp_path):
    assert store.tenants() == []
    write(store, "session/s", ids(300), cache(300))
    store.create_tenant("acme", bytes(range(32)))
    write(store, "session/s", ids(64), cache(64), tenant="acme")
    acme, default = store.tenants()
    assert (acme.name, acme.is_encrypted, acme.is_unlocked, acme.key_generation, acme.has_earlier_keys) == ("acme", True, True, 1, False)
    assert (default.name, default.is_encrypted, default.is_unlocked, default.key_generation) == ("default", False, True, None)
    assert (acme.live_pages, default.live_pages) == (2, 10) and 0 < acme.live_bytes < default.live_bytes
    assert acme.created.tzinfo is not None and acme.created >= default.created
    store.rekey(bytes(32), "acme")
    assert [(tenant.key_generation, tenant.has_earlier_keys) for tenant in store.tenants()] == [(2, True), (None, False)]
    store.reseal()
    assert store.tenants()[0].has_earlier_keys is False
    store.close()
    with Store(tmp_path / "store", read_only=True) as locked:
        acme = locked.tenants()[0]
        assert (acme.is_encrypted, acme.is_unlocked, acme.key_generation, acme.has_earlier_keys, acme.live_pages) == (True, False, 2, None, 2)


def test_names_that_hold_nul_are_refused(store):
    write(store, "session/s", ids(64), cache(64))
    for what in (
        lambda: store.create_tenant("a\0b"),
        lambda: store.unlock(bytes(32), "a\0b"),
        lambda: store.session("s\0x"),
        lambda: store.session("s", tenant="default\0x"),
        lambda: store.writer("session/s\0x", MODEL),
        lambda: store.longest_prefix(ids(64), MODEL, tenant="default\0x"),
        lambda: store.session("s").fork("t\0x"),
        lambda: store.remove_model("m\0x"),
        lambda: Store(store.path + "\0x"),
    ):
        with pytest.raises(InvalidArgument, match="NUL"):
            what()
    assert [session.name for session in store.sessions(building=True)] == ["s"]
    assert [tenant.name for tenant in store.tenants()] == ["default"]


def test_encrypted_tenants(library, tmp_path):
    path, key = tmp_path / "store", bytes(range(32))
    with Store.create(path) as store:
        store.add_model(MODEL)
        store.create_tenant("acme", key)
        with pytest.raises(reelkv.AlreadyExists):
            store.create_tenant("acme")
        write(store, "session/s", ids(300), cache(300), tenant="acme")
        assert_same(store.longest_prefix(ids(300), MODEL, tenant="acme").restore(), cache(300))
    key_file = tmp_path / "key"
    with Store(path) as store:
        with pytest.raises(reelkv.KeyRequired):
            store.longest_prefix(ids(300), MODEL, tenant="acme")
        assert store.session("s", tenant="acme").is_locked
        with pytest.raises(reelkv.WrongKey):
            store.unlock(bytes(32), "acme")
        for content, mode in [(b"short", 0o600), (key.hex().encode(), 0o644)]:
            key_file.write_bytes(content)
            key_file.chmod(mode)
            with pytest.raises(InvalidArgument):
                store.unlock(key_file, "acme")
        key_file.chmod(0o600)
        store.unlock(key_file, "acme")
        assert not store.session("s", tenant="acme").is_locked
        store.rekey(bytes(32), "acme")
        store.reseal()
        assert store.verify().is_sound
    for index in path.glob("index*.mdb"):
        index.unlink()
    with pytest.raises(reelkv.KeyRequired):
        reelkv.rebuild(path)
    assert reelkv.rebuild(path, {"acme": bytes(32)}).is_sound
    with Store(path) as store:
        store.unlock(bytes(32), "acme")
        assert_same(store.longest_prefix(ids(300), MODEL, tenant="acme").restore(), cache(300))
    pytest.importorskip("nacl", reason="the reader opens encrypted tenants with PyNaCl")
    with reader.Store(path, keys={"acme": bytes(32)}) as opened:
        assert reader.verify(opened, decoding=True) == []
