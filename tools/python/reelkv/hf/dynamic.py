"""transformers' `DynamicCache`, taken apart and put together again."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ..errors import InvalidArgument, ModelMismatch
from ..match import Match
from ..restoring import RestoreJob


def cache_layers(past: Any, start: int = 0, stop: int | None = None) -> list[tuple[Any, Any]]:
    """Tokens `start ..< stop` of a cache, as a `Writer` takes them.

    Args:
        past: a `DynamicCache` of one sequence. Its layers may attend to all tokens or have sliding windows.
        start, stop: indices in the sequence; None for its end.

    Returns:
        For each layer (key, value), `[1, heads, tokens, dim]` on the CPU; views of the cache's own memory where that is there. A layer
        with a sliding window has only those of the tokens that it still holds: the last ones.

    Raises:
        InvalidArgument: another kind of cache, several sequences, a range out of bounds.
    """
    count = token_count(past)
    stop = count if stop is None else stop
    if not 0 <= start <= stop <= count:
        raise InvalidArgument(f"tokens {start}..<{stop} are not within the {count} of the cache")
    layers = []
    for layer in past.layers:
        if count == 0:
            raise InvalidArgument("the cache is empty")
        dropped = count - layer.keys.shape[-2]
        part = slice(max(start - dropped, 0), max(stop - dropped, 0))
        layers.append((layer.keys[:, :, part].detach().cpu(), layer.values[:, :, part].detach().cpu()))
    return layers


def token_count(past: Any) -> int:
    """Tokens of a cache. Raises InvalidArgument for what is no cache of one sequence that can be stored."""
    if not isinstance(past, DynamicCache):
        raise InvalidArgument(f"a DynamicCache can be stored, not a {type(past).__name__}: pass past_key_values=DynamicCache(config=model.config)")
    for index, layer in enumerate(past.layers):
        if _plain_type(layer) is None:
            raise InvalidArgument(f"layer {index} of the cache is a {type(layer).__name__}, and not keys and values of every token: it cannot be stored")
        if layer.is_initialized and layer.keys.shape[0] != 1:
            raise InvalidArgument(f"the cache holds {layer.keys.shape[0]} sequences: store one at a time")
    return int(past.get_seq_length()) if past.layers else 0


def restore(
    match: Match, count: int, config: Any, devices: Sequence[Any], threads: int | None, layerwise: bool
) -> Any:
    """The first `count` tokens of a match as a `DynamicCache`, in the state in which the model would have left it.

    Args:
        devices: where each layer's tensors go.
        layerwise: whether to return at once, and let each layer wait for its tensors when it is first used.
    """
    past = DynamicCache(config=config)
    if len(past.layers) != len(match.layers):
        raise ModelMismatch(f"the model has {len(past.layers)} layers, the stored cache {len(match.layers)}")
    if count == 0:
        return past
    held = [_held(index, layer, count) for index, layer in enumerate(past.layers)]
    memory = [_memory(match, index, held[index]) for index in range(len(held))]
    jobs = {
        tokens: match.restoring(
            into=[pair if own == tokens else (None, None) for pair, own in zip(memory, held)],
            tokens=slice(count - tokens, count),
            threads=threads,
        )
        for tokens in set(held)
    }
    for index, layer in enumerate(past.layers):
        if hasattr(layer, "cumulative_length"):
            layer.cumulative_length = count
        _Pending(jobs[held[index]], index, memory[index], devices[index]).attach(layer)
    if not layerwise:
        for layer in past.layers:
            settle(layer)
    return past


def settle(layer: Any) -> None:
    """Waits until a layer is restored; it is an ordinary one from then on."""
    pending = layer.__dict__.get("_reelkv_pending")
    if pending is not None:
        pending.settle(layer)


def _plain_type(layer: Any) -> Any:
    """What a layer is or, restored layer by layer, will be; None for what cannot be stored."""
    return next((kind for kind in _RESTORING if type(layer) in (kind, _RESTORING[kind])), None)


def _held(index: int, layer: Any, count: int) -> int:
    """How many of a sequence's last tokens a layer keeps."""
    if type(layer) is DynamicSlidingWindowLayer:
        return min(count, int(layer.sliding_window) - 1)
    if type(layer) is DynamicLayer:
        return count
    raise InvalidArgument(f"layer {index} of this model's cache is a {type(layer).__name__}, which cannot be restored from keys and values")


def _memory(match: Match, index: int, tokens: int) -> tuple[Any, Any]:
    shape = match.layers[index]
    dtype = getattr(torch, match.dtype)
    # a tensor made in inference mode could not be used outside of it
    with torch.inference_mode(False):
        return (
            torch.empty((1, shape.kv_heads, tokens, shape.key_dim), dtype=dtype),
            torch.empty((1, shape.kv_heads, tokens, shape.value_dim), dtype=dtype),
        )


class _Pending:
    """What a layer waits for."""

    def __init__(self, job: RestoreJob, index: int, memory: tuple[Any, Any], device: Any):
        self._job, self._index, self._memory, self._device = job, index, memory, device

    def attach(self, layer: Any) -> None:
        kind = type(layer)
        with torch.inference_mode(False):
            like = [tensor[:0].to(self._device) for tensor in self._memory]
            layer.lazy_initialization(*like)
        del layer.keys, layer.values
        layer._reelkv_pending = self
        layer.__class__ = _RESTORING[kind]

    def settle(self, layer: Any) -> None:
        restored = self._job.wait(self._index)
        if restored.first_token > 0:
            raise InvalidArgument(
                f"layer {self._index} has dropped tokens that its window needs here: match again, with only the tokens to restore"
            )
        with torch.inference_mode(False):
            key, value = (tensor.to(self._device) for tensor in self._memory)
        del layer.__dict__["_reelkv_pending"]
        layer.__class__ = _plain_type(layer)
        layer.keys, layer.values = key, value


def _restoring(kind: Any) -> Any:
    """A kind of layer that waits for its tensors when they are first used."""

    def tensor(name: str) -> property:
        def get(layer: Any) -> Any:
            settle(layer)
            return layer.__dict__[name]

        def put(layer: Any, value: Any) -> None:
            settle(layer)
            layer.__dict__[name] = value

        def remove(layer: Any) -> None:
            layer.__dict__.pop(name, None)

        return property(get, put, remove)

    def deep_copy(layer: Any, memo: dict[int, Any]) -> Any:
        settle(layer)
        return copy.deepcopy(layer, memo)

    def reduced(layer: Any, protocol: Any) -> Any:
        settle(layer)
        return layer.__reduce_ex__(protocol)

    members = {"keys": tensor("keys"), "values": tensor("values"), "__deepcopy__": deep_copy, "__reduce_ex__": reduced}
    return type(kind.__name__, (kind,), members)


_RESTORING = {kind: _restoring(kind) for kind in (DynamicLayer, DynamicSlidingWindowLayer)}
