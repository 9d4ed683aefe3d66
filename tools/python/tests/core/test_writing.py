"""Writers, videos and sessions."""

import numpy as np
import pytest

import reelkv
from reelkv import Conflict, Frame, InvalidArgument, ModelMismatch, NotFound, Tokens

from .caches import LAYERS, MODEL, append, assert_same, cache, ids, part, write

COUNT = 100


def test_a_writer_tells_what_it_did(store):
    with store.writer("session/a", MODEL, "exact") as writer:
        assert (writer.token_count, writer.start_count, writer.sequence) == (0, 0, "session/a")
        append(writer, Tokens(ids(COUNT)), cache(COUNT), 0, chunk=7)
        assert (writer.token_count, writer.reused_token_count) == (COUNT, 0)
        writer.flush()
        assert writer.stored_bytes > 0
        writer.finish()
        assert writer.is_finished
    with store.writer("session/b", MODEL, "exact") as writer:
        append(writer, Tokens(ids(COUNT)), cache(COUNT), 0)
        writer.finish()
        assert writer.reused_token_count == COUNT and writer.stored_bytes == 0


def test_leaving_the_block_publishes(store):
    with store.writer("session/a", MODEL, "exact") as writer:
        append(writer, Tokens(ids(COUNT)), cache(COUNT), 0)
    assert store.session("a").token_count == COUNT


def test_an_exception_publishes_nothing_and_keeps_full_pages(store):
    with pytest.raises(RuntimeError):
        with store.writer("video/v", MODEL, "exact") as writer:
            append(writer, Tokens(ids(COUNT)), cache(COUNT), 0)
            writer.flush()
            raise RuntimeError("the prefill failed")
    with pytest.raises(NotFound):
        store.video("v")
    assert [(video.name, video.is_building) for video in store.videos(building=True)] == [("v", True)]
    with store.writer("video/v", MODEL, "exact") as writer:
        append(writer, Tokens(ids(COUNT)), cache(COUNT), 0)
        writer.finish()
        assert writer.reused_token_count == 96
    assert store.video("v").token_count == COUNT


def test_cancelling_deletes(store):
    writer = store.writer("video/v", MODEL, "exact")
    append(writer, Tokens(ids(COUNT)), cache(COUNT), 0)
    writer.flush()
    writer.cancel()
    assert store.videos(building=True) == [] and store.longest_prefix(ids(COUNT), MODEL).token_count == 0
    for use in (writer.flush, writer.cancel, lambda: writer.token_count):
        with pytest.raises(reelkv.Closed):
            use()
    writer.close()
    with store.writer("video/v", MODEL, "exact") as writer:
        writer.cancel()
    assert store.videos() == []


def test_a_session_grows_turn_by_turn(store):
    layers = cache(COUNT)
    write(store, "video/v", ids(60), part(layers, 0, 60))
    start = store.longest_prefix(ids(COUNT), MODEL)
    assert start.token_count == 60
    write(store, "session/s", ids(80), layers, start=start)
    write(store, "session/s", ids(COUNT), layers, after=80, engine_state=b"x")
    session = store.session("s")
    assert session.token_count == COUNT
    assert [turn.first_token for turn in session.turns] == [60, 80]
    assert_same(session.prefix().restore(), layers)
    with pytest.raises(Conflict):
        store.writer("session/s", MODEL, "exact", after=80)
    with pytest.raises(InvalidArgument):
        store.writer("session/s", MODEL, "exact", start=start)


def test_what_a_video_tells_of_itself(store):
    frames = [Frame(4, 30, 0.0), (34, 30, 0.5), Frame(64, 36, 1.25)]
    write(store, "video/a/b c", ids(COUNT), cache(COUNT), frames=frames, provenance={"source": "clip.mp4", "größe": "½"})
    (video,) = store.videos()
    assert (video.name, video.sequence, video.kind, len(video)) == ("a/b c", "video/a/b c", "video", COUNT)
    assert video.frames == (Frame(4, 30, 0.0), Frame(34, 30, 0.5), Frame(64, 36, 1.25))
    assert video.provenance["source"] == "clip.mp4" and video.provenance["größe"] == "½"
    assert (video.model, video.profile, video.is_pinned, video.is_building) == (MODEL.name, "exact", True, False)
    assert video.created <= video.updated
    video.unpin()
    assert not store.video("a/b c").is_pinned
    video.pin()
    assert store.video("a/b c").is_pinned
    write(store, "session/s", ids(40), cache(40), pinned=True)
    assert store.session("s").is_pinned


def test_forks_and_cuts(store):
    write(store, "video/v", ids(COUNT), cache(COUNT))
    video = store.video("v")
    session = video.fork("alice")
    assert (session.name, session.token_count) == ("alice", COUNT)
    assert video.fork("session/bob", 50).token_count == 50
    session.truncate(70)
    assert session.token_count == 70 and store.session("alice").token_count == 70
    assert_same(session.prefix().restore(), cache(70))
    assert [one.name for one in store.sessions()] == ["alice", "bob"]
    with pytest.raises(reelkv.AlreadyExists):
        video.fork("alice")
    session.remove()
    with pytest.raises(NotFound):
        session.refresh()
    for bad in (-1, 1 << 64, 1.5):
        with pytest.raises(InvalidArgument):
            video.fork("x", bad)


def test_tenants_do_not_see_each_other(store):
    write(store, "session/s", ids(COUNT), cache(COUNT), tenant="acme")
    assert store.longest_prefix(ids(COUNT), MODEL).token_count == 0
    assert store.longest_prefix(ids(COUNT), MODEL, tenant="acme").token_count == COUNT
    assert store.longest_prefix(ids(COUNT), MODEL, tenant="nobody").token_count == 0
    assert [s.tenant for s in store.sessions()] == ["acme"] and store.sessions(tenant="other") == []
    assert store.session("s", tenant="acme").prefix().token_count == COUNT
    with pytest.raises(NotFound):
        store.session("s")


def test_a_video_of_other_content(store):
    write(store, "video/v", ids(COUNT), cache(COUNT))
    with pytest.raises(reelkv.AlreadyExists):
        write(store, "video/v", ids(COUNT, 2), cache(COUNT, 2))
    write(store, "video/v", ids(COUNT, 2), cache(COUNT, 2), replace=True)
    assert_same(store.video("v").prefix().restore(), cache(COUNT, 2))


def test_what_does_not_fit_is_refused_and_the_writer_goes_on(store):
    layers = cache(COUNT)
    with store.writer("session/s", MODEL, "exact") as writer:
        tokens = Tokens(ids(COUNT))
        for bad, error in (
            (layers[:2], ModelMismatch),
            (part(layers, 0, 99), ModelMismatch),
            ([(key.astype(np.float16), value) for key, value in layers], ModelMismatch),
            ([(key[:1], value) for key, value in layers], ModelMismatch),
            ([(value, key) for key, value in layers], ModelMismatch),
            ([key for key, _ in layers], InvalidArgument),
            ([(key.astype(np.float64), value) for key, value in layers], InvalidArgument),
        ):
            with pytest.raises(error):
                writer.append(tokens, bad)
        with pytest.raises(InvalidArgument):
            writer.append([-5] * COUNT, layers)  # a placeholder of nothing
        writer.append([], part(layers, 0, 0))
        writer.append(tokens, layers)
    assert_same(store.session("s").prefix().restore(), layers)


@pytest.mark.parametrize(
    "arguments",
    [
        dict(sequence="clip"), dict(sequence="movie/clip"), dict(sequence="video/"), dict(sequence="session/a\nb"), dict(sequence="video/" + "x" * 300),
        dict(profile="vidkv-3-3"), dict(after=-1), dict(after=1 << 70), dict(protected_tokens=[-1]), dict(sequence="video/a\0b"), dict(tenant=""),
        dict(sequence=7), dict(sequence="video/\ud800"),
    ],
    ids=str,
)  # fmt: skip
def test_what_opens_no_writer_is_told(store, arguments):
    with pytest.raises(InvalidArgument):
        store.writer(**{"sequence": "session/s", "model": MODEL, **arguments})


def test_an_unknown_model_is_told(store):
    with pytest.raises(NotFound):
        store.writer("session/s", "nobody")
    with pytest.raises(NotFound):
        store.longest_prefix([1], "nobody")


def test_protected_tokens_are_stored_more_precisely(store):
    layers, chosen = cache(96), [40, 41, 50]
    for name, protected in (("plain", None), ("protected", chosen)):
        write(store, f"session/{name}", ids(96, len(name)), layers, profile="vidkv-1.5-1.66", protected_tokens=protected)

    def value_error(name):
        restored = store.session(name).prefix().restore()
        return sum(np.square(got.value[:, chosen] - value[:, chosen]).sum() for got, (_, value) in zip(restored, layers))

    assert value_error("protected") < value_error("plain") / 2


def test_many_threads_write_one_after_the_other(store):
    from concurrent.futures import ThreadPoolExecutor

    layers = cache(COUNT)
    with store.writer("session/s", MODEL, "exact") as writer, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: writer.append(ids(5), part(layers, 0, 5)), range(40)))
    assert store.session("s").token_count == 200
    assert LAYERS == len(store.session("s").prefix().layers)
