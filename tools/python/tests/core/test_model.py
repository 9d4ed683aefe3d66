"""Models from configs and specs, and the fingerprints of weight files."""

import hashlib
import json
import os
import subprocess
import time

import pytest

import reelkv
from reelkv import InvalidArgument, Model, weights_fingerprint

CONFIG = {"model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64, "dtype": "float16"}
DIGITS = "ab" * 32


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    """A model's folder, as downloads make it: two weight files, an old one beside them, a config."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    (path / "model-00001-of-00002.safetensors").write_bytes(b"first" * 1000)
    (path / "model-00002-of-00002.safetensors").write_bytes(b"second" * 1000)
    (path / "pytorch_model.bin").write_bytes(b"the same, in another form")
    for file in path.iterdir():  # settled, as far as its time tells
        os.utime(file, (time.time() - 60, time.time() - 60))
    return path


def test_one_file_has_its_own_sha256(folder):
    file = folder / "pytorch_model.bin"
    assert weights_fingerprint(file) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_several_files_have_what_sha256sum_says(folder):
    printed = subprocess.run(
        "sha256sum *.safetensors | sha256sum", shell=True, cwd=folder, env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True
    )
    assert weights_fingerprint(folder) == printed.stdout.split()[0]
    assert weights_fingerprint(reversed(sorted(folder.glob("*.safetensors")))) == printed.stdout.split()[0]


def test_every_change_of_the_weights_changes_the_fingerprint(folder):
    seen = {weights_fingerprint(folder), weights_fingerprint(folder, variant="int8"), weights_fingerprint(folder, variant="int4")}
    (folder / "model-00002-of-00002.safetensors").rename(folder / "model-3.safetensors")
    seen.add(weights_fingerprint(folder))
    (folder / "model-3.safetensors").write_bytes(b"SECOND" * 1000)
    seen.add(weights_fingerprint(folder))
    (folder / "model-3.safetensors").unlink()
    seen.add(weights_fingerprint(folder))
    assert len(seen) == 6


def test_digests_are_remembered_until_a_file_changes(folder, monkeypatch):
    first = weights_fingerprint(folder)
    read = []
    real = hashlib.sha256
    monkeypatch.setattr(reelkv.weights.hashlib, "sha256", lambda *given: read.append(given) or real(*given))
    assert weights_fingerprint(folder) == first
    assert len(read) == 1  # only that of the two digests
    assert weights_fingerprint(folder, cached=False) == first
    assert len(read) == 1 + 3
    file = folder / "model-00001-of-00002.safetensors"
    file.write_bytes(b"FIRST" * 1000)
    os.utime(file, (time.time() - 30, time.time() - 30))
    assert weights_fingerprint(folder) != first


def test_a_file_that_was_just_written_is_not_remembered(folder):
    file = folder / "model-00001-of-00002.safetensors"
    file.write_bytes(b"first" * 1000)
    weights_fingerprint(file)
    status = file.stat()
    before = weights_fingerprint(file)
    file.write_bytes(b"FIRST" * 1000)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a coarse clock would have it
    assert weights_fingerprint(file) != before


@pytest.mark.parametrize("content", ["", "[]", "{", '{"PATH": "x"}', '{"PATH": [1, 2, 3, 4]}', '{"PATH": null}'])
def test_a_memory_that_says_nonsense_is_not_believed(folder, tmp_path, content):
    file = folder / "pytorch_model.bin"
    memory = tmp_path / "cache" / "reelkv" / "weights.json"
    memory.parent.mkdir(parents=True)
    memory.write_text(content.replace("PATH", str(file)))
    assert weights_fingerprint(file) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_home_that_cannot_be_written_is_no_problem(folder, tmp_path, monkeypatch):
    (tmp_path / "blocked").write_text("a file where a folder would be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "blocked"))
    assert len(weights_fingerprint(folder)) == 64


@pytest.mark.parametrize("given", ["nothing/there", [], ["nothing.bin"]])
def test_no_weights_are_told(given):
    with pytest.raises(InvalidArgument):
        weights_fingerprint(given)


def test_an_empty_folder_and_equal_names_are_told(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(InvalidArgument, match="holds no weights"):
        weights_fingerprint(tmp_path / "a")
    for name in "ab":
        (tmp_path / name / "w.bin").write_bytes(name.encode())
    with pytest.raises(InvalidArgument, match="same name"):
        weights_fingerprint([tmp_path / "a" / "w.bin", tmp_path / "b" / "w.bin"])


def test_a_model_of_a_folder(folder):
    for config in (folder, str(folder), folder / "config.json"):
        model = Model.from_hf_config(config)
        assert model.fingerprint == weights_fingerprint(folder)
        assert model.name == f"llama-{model.fingerprint[:12]}"
        assert json.loads(model.json) == CONFIG
    assert Model.from_hf_config(folder, weights=folder / "pytorch_model.bin").fingerprint != model.fingerprint
    assert Model.from_hf_config(folder, variant="nf4").fingerprint == weights_fingerprint(folder, variant="nf4")


def test_a_config_as_transformers_has_it():
    class Type:  # as torch's prints itself
        def __str__(self):
            return "torch.bfloat16"

    class Config:
        def to_dict(self):
            return {"model_type": "vlm", "text_config": {"dtype": Type(), "limits": (0.0, float("inf"))}, 3: float("nan")}

    model = Model.from_hf_config(Config(), weights=DIGITS.upper(), name="m")
    assert (model.name, model.fingerprint) == ("m", DIGITS)
    assert json.loads(model.json) == {"model_type": "vlm", "text_config": {"dtype": "bfloat16", "limits": [0, None]}, "3": None}
    changed = json.loads(Model.from_hf_config(Config(), weights=DIGITS, dtype="float32").json)
    assert changed["dtype"] == changed["text_config"]["dtype"] == "float32"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"config": CONFIG}, "which weights"),
        ({"config": 7, "weights": DIGITS}, "a config is"),
        ({"config": "no/such/folder", "weights": DIGITS}, "cannot be read"),
        ({"config": CONFIG, "weights": DIGITS, "dtype": "int8"}, "float16, bfloat16 or float32"),
        ({"config": CONFIG, "weights": DIGITS[1:]}, "is no file"),
    ],
)
def test_what_makes_no_model_is_told(arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        Model.from_hf_config(**arguments)


def test_a_file_that_is_no_config_is_told(tmp_path):
    for content, message in (("{", "not valid JSON"), ("[1]", "no JSON object")):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(InvalidArgument, match=message):
            Model.from_hf_config(tmp_path, weights=DIGITS)


def test_a_model_of_a_spec(tmp_path):
    spec = {"name": "tiny", "layers": 1, "kv_heads": 1, "head_dim": 8, "dtype": "float32", "rope": None, "fingerprint": "sha256:" + DIGITS}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    for given in (spec, tmp_path / "spec.json"):
        model = Model.from_spec(given)
        assert (model.name, model.fingerprint) == ("tiny", DIGITS)
    assert Model.from_spec(spec, name="other").name == "other"
    for broken in ({**spec, "name": None}, {**spec, "fingerprint": "12"}, {**spec, "fingerprint": None}):
        with pytest.raises(InvalidArgument):
            Model.from_spec(broken)
