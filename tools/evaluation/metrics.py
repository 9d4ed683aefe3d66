"""How far a model's output over an approximate cache is from its output over the exact one."""

from dataclasses import dataclass

import torch

from .model import Layers


@dataclass(frozen=True)
class LogitError:
    """Of the distribution over the next token, after each of the tokens that follow."""

    kl: float
    """Mean KL divergence from the exact distribution to the approximate one, nats."""
    kl_standard_error: float
    """Of that mean, as if tokens were independent."""
    top1_agreement: float
    """Share of tokens whose most likely successor is the same."""
    perplexity: float
    """Over the approximate cache, of the tokens that follow, from the second on."""


def logit_error(approximate: torch.Tensor, exact: torch.Tensor, following: list[int]) -> LogitError:
    """Logits are `[tokens, vocabulary]`, row i after `following[i]`."""
    # In doubles: near-equal distributions differ by less than a sum over 49,152 floats can tell.
    p, q = exact.double().log_softmax(-1), approximate.double().log_softmax(-1)
    divergences = (p.exp() * (p - q)).sum(-1)
    next_tokens = torch.tensor(following[1:])[:, None]
    return LogitError(
        float(divergences.mean()),
        float(divergences.std() / len(divergences) ** 0.5),
        float((exact.argmax(-1) == approximate.argmax(-1)).double().mean()),
        float((-q[:-1].gather(1, next_tokens).mean()).exp()),
    )


def nmse(approximate: torch.Tensor, exact: torch.Tensor) -> float:
    """Sum of squared differences over sum of squares. 0 when nothing differs."""
    error = (approximate.double() - exact.double()).square().sum()
    return float(error / exact.double().square().sum()) if error else 0.0


def nmse_per_layer(approximate: Layers, exact: Layers) -> tuple[list[float], list[float]]:
    """Of keys and of values."""
    pairs = list(zip(approximate, exact, strict=True))
    return [nmse(ours[0], theirs[0]) for ours, theirs in pairs], [nmse(ours[1], theirs[1]) for ours, theirs in pairs]


def attention(queries: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Outputs of queries that come after the whole cache: softmax(q k / sqrt(dim)) v, `[query heads, queries, value dim]`.

    Query head h reads key/value head h / (query heads / key heads).
    """
    sharing = queries.shape[0] // key.shape[0]
    scores = queries @ key.repeat_interleave(sharing, 0).transpose(1, 2) / queries.shape[2] ** 0.5
    return scores.softmax(-1) @ value.repeat_interleave(sharing, 0)


def attention_outputs(queries: list[torch.Tensor], layers: Layers) -> list[torch.Tensor]:
    """Of every layer."""
    return [attention(query, key, value) for query, (key, value) in zip(queries, layers, strict=True)]


def attention_error_per_layer(approximate: list[torch.Tensor], exact: list[torch.Tensor]) -> list[float]:
    """Relative L2 distance of attention outputs over the approximate cache from those over the exact one."""
    return [nmse(ours, theirs) ** 0.5 for ours, theirs in zip(approximate, exact, strict=True)]
