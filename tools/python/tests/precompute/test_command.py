"""The command `reelkv-precompute`: what it prints, what it says when something is wrong, and how it takes being stopped."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import reelkv
from reelkv.precompute import command

PYTHON_FOLDER = Path(__file__).parents[2]


@pytest.fixture
def store_folder(tmp_path) -> Path:
    """A store with small pages, so that tiny clips fill several."""
    reelkv.Store.create(tmp_path / "store", page_tokens=32).close()
    return tmp_path / "store"


@pytest.fixture
def arguments(clip_file, folder_of, store_folder) -> list[str]:
    return [
        str(clip_file), "--model", str(folder_of("llava_onevision")), "--store", str(store_folder), "--fps", "10", "--chunk-tokens", "32", "--device", "cpu",
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def signals_as_they_were():
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_it_says_what_it_did(arguments, capsys):
    assert command.main(arguments) == 0
    out = capsys.readouterr().out
    assert out.startswith("video/square: 40 frames, 164 tokens, 0 of them restored, 164 computed in ")
    assert "stored as vidkv-1.5-1.58 of model llava_onevision-" in out and "bits per element" in out
    assert command.main(arguments) == 0
    assert capsys.readouterr().out.startswith("video/square is stored already, token for token: 164 tokens")


def test_json(arguments, capsys, store_folder):
    assert command.main([*arguments, "--json", "--name", "a clip", "--tenant", "acme", "--profile", "exact", "--no-pin"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["video"], result["tokens"], result["computed_tokens"], result["profile"]) == ("video/a clip", 164, 164, "exact")
    assert {"decode", "load", "process", "vision", "prefill", "finish"} <= set(result["seconds"])
    with reelkv.Store(store_folder) as store:
        video = store.video("a clip", tenant="acme")
        assert not video.is_pinned and video.token_count == 164 and json.loads(video.provenance["sampling"]) == {"fps": 10}


def test_a_store_is_made_where_there_is_none(arguments, tmp_path, monkeypatch):
    monkeypatch.setenv("REELKV_STORE", str(tmp_path / "new"))
    at = arguments.index("--store")
    assert command.main(arguments[:at] + arguments[at + 2 :]) == 0
    with reelkv.Store(tmp_path / "new") as store:
        assert [video.name for video in store.videos()] == ["square"]


def test_which_frames(arguments, capsys):
    at = arguments.index("--fps")
    rest = arguments[:at] + arguments[at + 2 :]
    assert command.main([*rest, "--name", "default", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 4, "one a second"
    assert command.main([*rest, "--name", "part", "--json", "--frames", "5", "--start", "1", "--end", "3"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 5


@pytest.mark.parametrize(
    "more, status, words",
    [
        (["--fps", "0"], 1, "frames a second must be above 0"),
        (["--fps", "1", "--frames", "3"], 2, "not allowed with"),
        (["--chunk-tokens", "0"], 2, "must be at least 1"),
        (["--profile", "tiny"], 1, "tiny"),
        (["--name", "x" * 300], 1, "200"),
        (["--device", "cuda:77"], 1, "cannot be put on cuda:77"),
    ],
)
def test_arguments_that_cannot_be_meant(arguments, capsys, more, status, words):
    try:
        assert command.main([*arguments, *more]) == status
    except SystemExit as exit:
        assert exit.code == status
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error


def test_a_clip_or_model_or_store_that_is_not_there(arguments, capsys, tmp_path):
    (tmp_path / "file").write_text("no store")
    for replaced, words in [
        ({0: "/none.mp4"}, "/none.mp4 is not a file"),
        ({2: "/none"}, "/none is not a folder"),
        ({4: str(tmp_path / "file")}, str(tmp_path / "file")),
    ]:
        changed = [replaced.get(index, argument) for index, argument in enumerate(arguments)]
        assert command.main(changed) == 1
        assert words in capsys.readouterr().err


def test_another_clip_of_the_name_is_refused(arguments, capsys):
    assert command.main(arguments) == 0
    assert command.main([*arguments, "--end", "2"]) == 1
    assert "video/square holds another video" in capsys.readouterr().err
    assert command.main([*arguments, "--end", "2", "--replace"]) == 0


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as exit:
        command.main(["--help"])
    assert exit.value.code == 0
    out = capsys.readouterr().out
    assert "examples:" in out and "--recompute" in out


# Stopped

STOPPING = """
import os, signal
from reelkv.precompute import job
from reelkv.precompute.decoder import DecoderCall

job._FLUSH_SECONDS = 0
own, done = DecoderCall.run, []

def run(call, cache, tokens):
    if len(done) == CHUNKS:
        os.kill(os.getpid(), signal.HOW)
    done.append(tokens)
    return own(call, cache, tokens)

DecoderCall.run = run
"""


@pytest.fixture
def interrupted_after(monkeypatch):
    """Has this process be interrupted before the chunk of that index."""
    from reelkv.precompute import job
    from reelkv.precompute.decoder import DecoderCall

    def interrupted(chunks: int) -> None:
        monkeypatch.setattr(job, "_FLUSH_SECONDS", job._FLUSH_SECONDS)
        monkeypatch.setattr(DecoderCall, "run", DecoderCall.run)  # put back at the end
        exec(STOPPING.replace("CHUNKS", str(chunks)).replace("HOW", "SIGINT"), {})

    yield interrupted


def test_interrupted_and_run_again_it_goes_on(arguments, capsys, interrupted_after, monkeypatch, store_folder):
    interrupted_after(2)
    assert command.main(arguments) == 130
    said = capsys.readouterr()
    assert said.out == "" and "interrupted; 64 of 164 tokens are stored, and the same command goes on from token 64" in said.err
    with reelkv.Store(store_folder) as store:
        assert store.videos() == [] and store.verify().is_sound
    monkeypatch.undo()
    assert command.main(arguments) == 0
    said = capsys.readouterr()
    assert "64 of 164 tokens are stored already: going on from there" in said.err
    assert "what was computed now was computed from lossy pages" in said.out and "--recompute" in said.out


def test_interrupted_before_anything_was_computed(arguments, capsys, interrupted_after):
    interrupted_after(0)
    assert command.main(arguments) == 130
    assert "interrupted; 0 of 164 tokens are stored" in capsys.readouterr().err


@pytest.mark.parametrize("how, status", [("SIGTERM", 130), ("SIGKILL", -signal.SIGKILL)])
def test_a_process_that_is_ended_keeps_what_it_has_stored(arguments, capsys, how, status):
    program = STOPPING.replace("CHUNKS", "2").replace("HOW", how) + "import sys; from reelkv.precompute import command; sys.exit(command.main())"
    environment = os.environ | {"PYTHONPATH": str(PYTHON_FOLDER), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments, "--profile", "exact"], env=environment, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == status and ended.stdout == "" and "Traceback" not in ended.stderr
    assert command.main([*arguments, "--profile", "exact", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["restored_tokens"], result["computed_tokens"]) == (64, 100)
