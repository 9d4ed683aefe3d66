"""Forks, spawned processes, and libraries that are not there or not the right ones."""

import multiprocessing
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import reelkv
from reelkv import Store

from .caches import MODEL, assert_same, cache, ids, write

PACKAGE = Path(reelkv.__file__).parents[1]


def in_fork(function, *arguments):
    """What a function returns in a forked child."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def run():
        try:
            theirs.send(function(*arguments))
        except BaseException as error:
            theirs.send(error)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the process may have threads
        child = context.Process(target=run)
        child.start()
    assert ours.poll(60), "the child did not answer"
    result = ours.recv()
    child.join(60)
    assert child.exitcode == 0
    return result


def test_whatever_was_opened_before_a_fork_says_so(store):
    write(store, "video/v", ids(64), cache(64))
    match = store.longest_prefix(ids(64), MODEL)
    writer, lease, job = store.writer("session/s", MODEL, "exact"), match.lease(), match.restoring()
    video = store.video("v")
    uses = [
        lambda: store.models(),
        lambda: store.longest_prefix(ids(64), MODEL),
        lambda: store.writer("session/t", MODEL),
        lambda: store.verify(),
        lambda: match.restore(),
        lambda: match.tokens(),
        lambda: match.lease(),
        lambda: match.restoring(),
        lambda: writer.append(ids(4), cache(4)),
        lambda: writer.token_count,
        lambda: writer.cancel(),
        lambda: job.wait(0),
        lambda: video.prefix(),
        lambda: video.remove(),
    ]

    def kinds():
        told = []
        for use in uses:
            try:
                use()
                told.append("nothing")
            except reelkv.Forked as error:
                told.append("after fork" if "before fork()" in str(error) else str(error))
        # closing does nothing, and neither does the end of the process
        for handle in (job, writer, lease, match, store):
            try:
                handle.close()
            except reelkv.Error as error:
                told.append(repr(error))
        return told

    assert in_fork(kinds) == ["after fork"] * len(uses)
    # here nothing has changed
    assert_same([job.wait(1)], cache(64)[1:2])
    job.close()
    writer.append(ids(64), cache(64))
    writer.finish()
    assert_same(store.session("s").prefix().restore(), cache(64))


def test_a_child_opens_the_store_anew(store, tmp_path):
    write(store, "video/v", ids(64), cache(64))

    def work():
        with Store(tmp_path / "store") as own:
            match = own.longest_prefix(ids(64), MODEL)
            assert_same(match.restore(), cache(64))
            write(own, "session/child", ids(96), cache(96), start=match)
            return own.session("child").token_count

    assert in_fork(work) == 96
    assert_same(store.session("child").prefix().restore(), cache(96))


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(PACKAGE), **environment}, capture_output=True, text=True, timeout=120
    )


def test_another_process_reads_what_this_one_wrote(store, tmp_path):
    write(store, "session/s", ids(100), cache(100), engine_state=b"state")
    result = run_python(
        f"""
import reelkv
with reelkv.Store({str(tmp_path / "store")!r}) as store:
    match = store.session("s").prefix()
    print(match.engine_state, [float(layer.key.sum()) for layer in match.restore(threads=1)])
"""
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == f"{b'state'} {[float(layer.key.sum()) for layer in store.session('s').prefix().restore()]}"


def test_an_interpreter_that_ends_with_all_open(store, tmp_path):
    write(store, "video/v", ids(100), cache(100))
    result = run_python(
        f"""
import reelkv, threading
store = reelkv.Store({str(tmp_path / "store")!r})
match = store.video("v").prefix()
job, writer, lease = match.restoring(), store.writer("session/s", match.model), match.lease()
"""
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_importing_needs_no_library():
    result = run_python("import reelkv; print(len(reelkv.Tokens([1, 2])))", REELKV_LIBRARY="/nowhere/libreelkv.so")
    assert (result.returncode, result.stdout.strip()) == (0, "2"), result.stderr


@pytest.mark.parametrize("content", [None, b"no library at all"])
def test_a_library_that_is_none_is_told(tmp_path, content):
    path = tmp_path / "libreelkv.so"
    if content is not None:
        path.write_bytes(content)
    result = run_python("import reelkv; reelkv.Store('x')", REELKV_LIBRARY=str(path))
    assert "LibraryUnavailable" in result.stderr and str(path) in result.stderr


@pytest.mark.parametrize(
    "source, message",
    [
        ("unsigned reelkv_abi_version(void) { return 0; }", "implements version 0"),
        ("unsigned reelkv_abi_version(void) { return 99; }", "lacks a function"),
        ("int something(void) { return 0; }", "is no libreelkv"),
    ],
)
def test_a_library_of_another_version_is_told(tmp_path, source, message):
    path = tmp_path / "libreelkv.so"
    (tmp_path / "other.c").write_text(source)
    try:
        subprocess.run(["cc", "-shared", "-o", path, tmp_path / "other.c"], check=True)
    except FileNotFoundError:
        pytest.skip("there is no C compiler to make such a library with")
    result = run_python("import reelkv; reelkv.Store('x')", REELKV_LIBRARY=str(path))
    assert "LibraryUnavailable" in result.stderr and message in result.stderr
