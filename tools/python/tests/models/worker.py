"""`python -m tests.models.worker FOLDER...`: the second turns of conversations, in a process that has only the stores of the first ones.

A folder holds `store`, and `live.pt` with what the turn is; `restored.pt` is put beside them.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import torch

from reelkv import Store
from reelkv.hf import Cache

from . import tiny

GREEDY = dict(do_sample=False, suppress_tokens=[tiny.IMAGE, tiny.VIDEO, tiny.VISION_START, tiny.VISION_END])


def load(name: str, dtype: torch.dtype) -> Any:
    """A tiny model by its case, or one from a folder."""
    if name in tiny.CASES:
        return tiny.build(tiny.CASES[name][0], dtype)
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(name, dtype=dtype).eval()


def continued(model: Any, past: Any, prompt: tiny.Prompts) -> dict[str, Any]:
    """Logits of what is new in the prompt, and 64 greedy tokens, both from the same cache: by the model's own means."""
    ids = torch.tensor([prompt.ids])
    logits = model(input_ids=ids[:, past.get_seq_length() :], past_key_values=copy.deepcopy(past)).logits
    generated = model.generate(
        ids, attention_mask=torch.ones_like(ids), past_key_values=past, max_new_tokens=64, min_new_tokens=64, **GREEDY
    )
    return {"logits": logits, "ids": generated[0, len(prompt.ids) :].tolist()}


@torch.inference_mode()
def go_on(folder: Path) -> None:
    live = torch.load(folder / "live.pt", weights_only=False)
    model, results = load(live["model"], live["dtype"]), {}
    with Store(folder / "store") as store, Cache(store, model, profile="exact", weights=live["weights"]) as kv:
        match = kv.match(live["prompt"].inputs(), accept="exact")
        for layerwise in (False, True):
            past = kv.restore(match, layerwise=layerwise)
            results[layerwise] = {"count": match.token_count} | continued(model, past, live["prompt"])
    torch.save(results, folder / "restored.pt")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        go_on(Path(argument))
