"""LMCache beside the peers: what is put is what is got, whatever the tokens, and nothing is measured that failed."""

import resource
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

np = pytest.importorskip("numpy")

from benchmarks import lmcache_disk, tensors  # noqa: E402
from benchmarks.rounds import Measurements  # noqa: E402

TOKENS = 300


@pytest.fixture
def contender(tmp_path) -> lmcache_disk.LMCacheDisk:
    return lmcache_disk.LMCacheDisk(tmp_path, tensors.cache(TOKENS))


@pytest.fixture
def lmcache():
    """LMCache is installed where it was asked for."""
    pytest.importorskip("torch")
    return pytest.importorskip("lmcache", reason="LMCache is not installed; tools/bench --with-lmcache installs it")


def test_chunks_hold_the_cache(contender):
    chunks = contender._chunks()
    assert [chunk.shape for chunk in chunks] == [(2, tensors.LAYERS, tokens, tensors.HEADS * tensors.DIM) for tokens in (256, 44)]
    assert sum(chunk.nbytes for chunk in chunks) == contender.byte_count
    random = np.random.default_rng(2)
    for layer, token, head in zip(*(random.integers(0, end, 200) for end in (tensors.LAYERS, TOKENS, tensors.HEADS))):
        for kind, name in enumerate(("key", "value")):
            stored = chunks[token // 256][kind, layer, token % 256].reshape(tensors.HEADS, tensors.DIM)[head]
            assert np.array_equal(stored, contender.cache[f"layers.{layer}.{name}"][0, head, token])


def test_rounds_are_measured_and_leave_nothing(lmcache, contender, tmp_path):
    measured = Measurements()
    for _ in range(2):
        contender.measure_round(measured)
    assert set(measured.values) == {f"LMCache local disk, {what}" for what in ("put until written", "put + fsync", "get warm")}
    assert set(measured.bytes.values()) == {contender.byte_count}
    assert all(len(values) == 2 and min(values) > 0 for values in measured.values.values())
    assert lmcache.__version__ in contender.notes[0] and "2 files" in contender.notes[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_what_is_not_given_back_is_no_figure(lmcache, contender, damage):
    chunks = contender._chunks()
    with contender._backend(chunks) as (disk, keys, stored):
        contender._put(disk, keys, stored)
        contender._check(chunks, disk.batched_get_blocking(keys))
    with contender._backend(chunks) as (disk, keys, stored):
        contender._put(disk, keys, stored)
        file = sorted(contender._path.glob("*.pt"))[1]
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        {
            "changed": lambda: file.write_bytes(data),
            "cut": lambda: file.write_bytes(data[:4096]),
            "gone": file.unlink,
        }[damage]()
        with pytest.raises(RuntimeError, match="chunk 1"):
            contender._check(chunks, disk.batched_get_blocking(keys))


def test_a_write_that_fails_ends_the_round(lmcache, contender, tmp_path, monkeypatch):
    monkeypatch.setattr(lmcache_disk, "PATIENCE_SECONDS", 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    measured = Measurements()
    try:
        with pytest.raises(RuntimeError, match="is there room in"):
            contender.measure_round(measured)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert measured.values == {} and list(tmp_path.iterdir()) == []
