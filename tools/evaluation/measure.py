"""Every method on every passage."""

from collections.abc import Callable
from dataclasses import asdict
from statistics import fmean

import torch

from . import metrics
from .methods import Method
from .model import EvaluatedModel, Following
from .passages import Passage, Source


def measure(model: EvaluatedModel, sources: list[Source], methods: list[Method], progress: Callable[[str], None]) -> dict:
    """`passages`: what was read, and the exact cache's perplexity. `rows`: a row for each method on each passage."""
    passages, rows = [], []
    for number, source in enumerate(sources):
        step = f"{source.name}, {number + 1} of {len(sources)}"
        progress(f"{step}: the model reads it")
        passage = source.read(model)
        exact = passage.cached.follow(passage.following)
        outputs = metrics.attention_outputs(exact.queries, passage.cached.layers)
        own = metrics.logit_error(exact.logits, exact.logits, passage.following)
        described = {"name": passage.name, "kind": passage.kind, "following_tokens": len(passage.following)}
        passages.append(described | {"perplexity": own.perplexity} | passage.about)
        for method in methods:
            progress(f"{step}: {method.name}")
            rows.append(row(passage, exact, outputs, method))
    return {"passages": passages, "rows": rows}


def row(passage: Passage, exact: Following, exact_outputs: list[torch.Tensor], method: Method) -> dict:
    outcome = method.approximate(passage.cached)
    approximate = passage.cached.follow(passage.following, outcome.layers)
    key_nmse, value_nmse = metrics.nmse_per_layer(outcome.layers, passage.cached.layers)
    outputs = metrics.attention_outputs(exact.queries, outcome.layers)
    attention = metrics.attention_error_per_layer(outputs, exact_outputs)
    return {
        "passage": passage.name,
        "kind": passage.kind,
        "method": method.name,
        "is_profile": method.is_profile,
        "bits": outcome.bits,
        **outcome.details,
        **asdict(metrics.logit_error(approximate.logits, exact.logits, passage.following)),
        "key_nmse": fmean(key_nmse),
        "value_nmse": fmean(value_nmse),
        "attention_error": fmean(attention),
        "key_nmse_per_layer": key_nmse,
        "value_nmse_per_layer": value_nmse,
        "attention_error_per_layer": attention,
    }
