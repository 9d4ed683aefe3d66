"""A cache that was stored exact, and restored in another process, goes on as if it had never left: the same logits, bit for bit, and the
same text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache

import reelkv
from reelkv import Store
from reelkv.hf import Cache

from . import tiny
from .worker import GREEDY, continued, load

ROOT = Path(__file__).resolve().parents[2]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@torch.inference_mode()
def uninterrupted(folder: Path, name: str, dtype: torch.dtype, first: tiny.Prompts, weights: str | None = None) -> None:
    """A first turn, which is saved, and a second one on the live cache, whose results go to a file."""
    folder.mkdir()
    model = load(name, dtype)
    with Store.open_or_create(folder / "store") as store, Cache(store, model, profile="exact", weights=weights) as kv:
        past, inputs = DynamicCache(config=model.config), first.inputs()
        output = model.generate(**inputs, past_key_values=past, max_new_tokens=9, return_dict_in_generate=True, **GREEDY)
        count = past.get_seq_length()
        assert count == len(first.ids) + 8  # the last token was not fed
        assert kv.save("session/alice", {**inputs, "input_ids": output.sequences}, past) == count
    prompt = tiny.Prompts(output.sequences[0].tolist(), first.media).then(tiny.text(12, 20))
    result = {"model": name, "dtype": dtype, "weights": weights, "prompt": prompt, "count": count}
    torch.save(result | continued(model, past, prompt), folder / "live.pt")


def go_on_in_a_new_process(folders: list[Path]) -> None:
    ran = subprocess.run([sys.executable, "-m", "tests.models.worker", *folders], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def assert_went_on_the_same(folder: Path) -> None:
    live: dict[str, Any] = torch.load(folder / "live.pt", weights_only=False)
    results: dict[bool, dict[str, Any]] = torch.load(folder / "restored.pt", weights_only=False)
    for layerwise in (False, True):
        restored = results[layerwise]
        assert restored["count"] == live["count"]
        assert restored["logits"].dtype == live["logits"].dtype == live["dtype"]
        assert torch.equal(restored["logits"], live["logits"]), "the logits of the second turn differ"
        assert len(live["ids"]) == 64 and restored["ids"] == live["ids"], "the greedy texts differ"


@pytest.fixture(scope="module")
def conversations(library, tmp_path_factory) -> Path:
    """One folder for each tiny model and type. One new process goes on with all of them."""
    root = tmp_path_factory.mktemp("conversations")
    for name, (_, conversation) in tiny.CASES.items():
        for kind, dtype in DTYPES.items():
            uninterrupted(root / f"{name}-{kind}", name, dtype, conversation())
    go_on_in_a_new_process(sorted(root.iterdir()))
    return root


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("name", tiny.CASES)
def test_a_conversation_goes_on_in_a_new_process(conversations, name, kind):
    assert_went_on_the_same(conversations / f"{name}-{kind}")


@pytest.mark.parametrize("kind", DTYPES)
def test_smollm2_goes_on_in_a_new_process(library, tmp_path, smollm2, kind):
    weights = reelkv.weights_fingerprint(smollm2.folder, cached=False)
    text = smollm2.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Why is the sky blue, and why is it red in the evening? " * 10}], tokenize=False, add_generation_prompt=True
    )
    first = tiny.Prompts(smollm2.tokenizer(text, add_special_tokens=False).input_ids, {})
    uninterrupted(tmp_path / "chat", str(smollm2.folder), DTYPES[kind], first, weights)
    go_on_in_a_new_process([tmp_path / "chat"])
    assert_went_on_the_same(tmp_path / "chat")
