"""mlx-lm's prompt caches: files in and out, without mlx.

    reelkv.mlx.import_cache(store, "prompt.safetensors", "session/alice", model, tokens=ids)   # mlx_lm.cache_prompt wrote it
    reelkv.mlx.export_cache(store.session("alice").prefix(), "prompt.safetensors")             # mlx_lm.generate --prompt-cache-file

mlx-lm writes one safetensors file with, for layer N, keys as `N.0` and values as `N.1`, `[1, heads, tokens, dim]`. Up to 0.31 what else a
layer's cache keeps is text in the header; from 0.32 on it is further arrays, and the keys and values may have room at their end. Both
are read, and either is written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import _safetensors, dtypes
from ._safetensors import Tensor
from .errors import Conflict, InvalidArgument, NotFound
from .match import Match
from .model import Model, StoredModel
from .store import Store
from .tokens import MediaSpan, Tokens, TokensLike
from .writer import DEFAULT_PROFILE

Layout = Literal["0.31", "0.32"]
"""The mlx-lm version whose files are meant, and those before or after it."""

_TYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}
_TYPE_NAMES = {name: kind for kind, name in _TYPES.items()}
_TOKENS = "reelkv_tokens"
"""The metadata in which `export_cache` says what the cache was computed from: mlx-lm's own does not."""


@dataclass(frozen=True)
class PromptCache:
    """What a prompt cache file holds."""

    layers: list[tuple[NDArray[Any], NDArray[Any]]]
    """(key, value), `[heads, tokens, dim]`, first tokens first. bfloat16 as bits, in uint16. Layers with a sliding window hold only the last
    tokens."""
    token_count: int
    dtype: str
    """What the elements are: "float16", "bfloat16" or "float32"."""
    windows: list[int | None]
    """Each layer's sliding window; None where it attends to all tokens."""
    metadata: dict[str, str]
    """What the file's writer noted: with mlx-lm `model`, `tokenizer_config`, ..."""
    tokens: Tokens | None
    """What it was computed from, where `export_cache` wrote the file."""


def load_cache(path: str | os.PathLike[str]) -> PromptCache:
    """Reads a prompt cache.

    Raises:
        InvalidArgument: no prompt cache, or one whose layers do not hold their tokens unquantized and in a row.
        OSError: it cannot be read.
    """
    tensors, header = _safetensors.read(path)
    metadata, classes, states = _unflattened(header)
    if not classes:
        raise InvalidArgument(f"{os.fspath(path)} is no prompt cache of mlx-lm: its header names no cache classes")
    layers, counts, windows, types = [], set(), [], set()
    for index, name in enumerate(classes):
        key, value = (_cache_tensor(path, tensors, f"{index}.{part}") for part in (0, 1))
        state = _layer_state(path, index, name, key, tensors, states.get(index, []))
        layers.append((state.ordered(key.array[0]), state.ordered(value.array[0])))
        counts.add(state.offset)
        windows.append(state.window)
        types |= {key.dtype, value.dtype}
    if len(counts) != 1 or len(types) != 1:
        raise InvalidArgument(f"{os.fspath(path)}: its layers have different numbers of tokens ({sorted(counts)}) or types ({sorted(types)})")
    (dtype,), (count,) = types, counts
    if dtype not in _TYPES:
        raise InvalidArgument(f"{os.fspath(path)} holds elements of {dtype}: only float16, bfloat16 and float32 can be stored")
    return PromptCache(layers, count, _TYPES[dtype], windows, metadata, _tokens_of(metadata, count))


def import_cache(
    store: Store,
    path: str | os.PathLike[str],
    sequence: str,
    model: Model | StoredModel | str,
    tokens: TokensLike | None = None,
    profile: str = DEFAULT_PROFILE,
    tenant: str | None = None,
    replace: bool = False,
) -> int:
    """Stores a prompt cache under a name.

    Args:
        sequence: "session/NAME" or "video/NAME". A session goes on after the tokens that it has.
        model: a model that the store has.
        tokens: what the cache was computed from; mlx-lm's files do not say. None where `export_cache` wrote the file.
        profile, tenant, replace: see `Store.writer`.

    Returns:
        How many tokens were appended.

    Raises:
        InvalidArgument: no tokens, or another number than the cache has.
        ModelMismatch: the cache is not one of the model.
        Conflict: the session has other tokens than the cache begins with.
    """
    cache = load_cache(path)
    given = Tokens.of(tokens) if tokens is not None else cache.tokens
    if given is None:
        raise InvalidArgument(f"{os.fspath(path)} does not say which tokens it holds: pass tokens=...")
    if len(given) < cache.token_count:
        raise InvalidArgument(f"{os.fspath(path)} holds {cache.token_count} tokens, but {len(given)} were given")
    given = given[: cache.token_count]
    known = 0
    if sequence.startswith("session/"):
        try:
            session = store.session(sequence, tenant)
        except NotFound:
            pass
        else:
            known = session.token_count
            if session.prefix(counted=False).tokens() != given[:known]:
                raise Conflict(f"{sequence} has other tokens than {os.fspath(path)}: import it under another name")
    with store.writer(sequence, model, profile, tenant, after=known, replace=replace) as writer:
        if known < len(given):
            dropped = [cache.token_count - key.shape[1] for key, _ in cache.layers]
            layers = [
                (key[:, max(0, known - gone) :], value[:, max(0, known - gone) :])
                for (key, value), gone in zip(cache.layers, dropped)
            ]
            writer.append(given[known:], layers)
        writer.finish(provenance={"file": os.path.basename(os.fspath(path)), "format": "mlx-lm prompt cache"})
    return len(given) - known


def export_cache(
    match: Match,
    path: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
    layout: Layout = "0.32",
    with_tokens: bool = True,
) -> None:
    """Writes a match as a prompt cache that mlx-lm loads.

    Args:
        metadata: what mlx-lm shall find in the file: its command line wants `model`, and `tokenizer_config` as JSON.
        layout: "0.32" for mlx-lm 0.32 and later, "0.31" for those before, which cannot read each other's.
        with_tokens: whether to note what the cache was computed from, as further metadata that mlx-lm passes over.

    Raises:
        PageUnavailable: pages were evicted meanwhile.
    """
    if layout not in ("0.31", "0.32"):
        raise InvalidArgument(f"the layout is '0.31' or '0.32', not {layout!r}")
    noted = dict(metadata or {})
    if with_tokens:
        noted[_TOKENS] = _tokens_text(match.tokens())
    restored = match.restore()
    tensors: dict[str, Tensor] = {}
    classes, infos, scalars = [], {}, []
    for index, layer in enumerate(restored):
        window = match.layers[index].sliding_window
        key, value = (_exported(array, layer.first_token, window) for array in layer)
        tensors[f"{index}.0"] = Tensor(_TYPE_NAMES[match.dtype], key[np.newaxis])
        tensors[f"{index}.1"] = Tensor(_TYPE_NAMES[match.dtype], value[np.newaxis])
        classes.append("KVCache" if window is None else "RotatingKVCache")
        numbers = [match.token_count] if window is None else [match.token_count, 0, window, key.shape[1]]
        if layout == "0.32":
            for at, number in enumerate(numbers, 2):
                tensors[f"{index}.{at}"] = Tensor("I32", np.array(number, np.int32))
                scalars.append((f"{index}.{at}", "scalar"))
        elif window is None:
            infos[f"0.{index}"] = ""
        else:  # keep, max_size, offset, index
            infos |= {f"0.{index}.{at}": str(number) for at, number in enumerate([0, window, match.token_count, key.shape[1]])}
    _safetensors.write(path, tensors, _flattened(layout, noted, classes, infos, scalars))


# The header


def _flattened(
    layout: Layout, noted: Mapping[str, str], classes: list[str], infos: Mapping[str, str], scalars: list[tuple[str, str]]
) -> dict[str, str]:
    if layout == "0.31":
        return {**infos, **{f"1.{key}": text for key, text in noted.items()}, **{f"2.{at}": name for at, name in enumerate(classes)}}
    header = {f"0.{key}": text for key, text in noted.items()} | {f"1.{at}": name for at, name in enumerate(classes)} | {"2.0": ""}
    for at, (name, kind) in enumerate(scalars, 1):
        header |= {f"2.{at}.0": name, f"2.{at}.1": kind}
    return header


def _unflattened(header: Mapping[str, str]) -> tuple[dict[str, str], list[str], dict[int, list[str]]]:
    """A file's own metadata, the class of each layer's cache, and, in the older layout, what else each keeps."""
    is_new = header.get("2.0") == ""
    noted, classes = ("0.", "1.") if is_new else ("1.", "2.")
    metadata = {key[2:]: text for key, text in header.items() if key.startswith(noted)}
    names: list[str] = []
    while (name := header.get(f"{classes}{len(names)}")) is not None:
        names.append(name)
    states: dict[int, list[str]] = {}
    if not is_new:
        for index in range(len(names)):
            values: list[str] = []
            while (value := header.get(f"0.{index}.{len(values)}")) is not None:
                values.append(value)
            states[index] = values
    return metadata, names, states


# Layers


@dataclass(frozen=True)
class _LayerState:
    """Where a layer's tokens are in its arrays."""

    offset: int
    """Tokens that it has seen."""
    window: int | None
    begin: int
    """Where the first of them is, if it goes around; the rest is in front of it."""
    length: int
    """How many rows hold tokens."""

    def ordered(self, array: NDArray[Any]) -> NDArray[Any]:
        rows = array[:, : self.length]
        return rows if self.begin in (0, self.length) else np.concatenate([rows[:, self.begin :], rows[:, : self.begin]], axis=1)


def _layer_state(
    path: str | os.PathLike[str], index: int, name: str, key: Tensor, tensors: Mapping[str, Tensor], texts: list[str]
) -> _LayerState:
    rows = key.array.shape[2]
    numbers = _numbers(path, index, tensors, texts)
    if name == "KVCache":
        offset = numbers[0] if numbers else rows
        if not 0 <= offset <= rows:
            raise InvalidArgument(f"{os.fspath(path)}: layer {index} says that it holds {offset} tokens, but has room for {rows}")
        return _LayerState(offset, None, 0, offset)
    if name != "RotatingKVCache":
        raise InvalidArgument(
            f"{os.fspath(path)}: layer {index} is a {name} of mlx-lm; only KVCache and RotatingKVCache hold their tokens unquantized and in "
            "a row: save the cache before it is quantized"
        )
    if len(numbers) != 4:
        raise InvalidArgument(f"{os.fspath(path)}: layer {index} does not say how its tokens go around")
    # the older layout has the offset behind the other two
    offset, keep, window, at = numbers if not texts else (numbers[2], numbers[0], numbers[1], numbers[3])
    if keep != 0:
        raise InvalidArgument(f"{os.fspath(path)}: layer {index} keeps its first {keep} tokens beside the last ones, so that some are missing")
    if not (0 <= at <= rows and offset >= at and window > 0):
        raise InvalidArgument(f"{os.fspath(path)}: layer {index} says something impossible of its tokens")
    if at == rows:
        return _LayerState(offset, window, 0, rows)
    # not full yet: what is behind is room
    return _LayerState(offset, window, 0, at) if at >= offset else _LayerState(offset, window, at, rows)


def _numbers(path: str | os.PathLike[str], index: int, tensors: Mapping[str, Tensor], texts: list[str]) -> list[int]:
    """What a layer keeps beside keys and values, in its layout's order."""
    try:
        if texts:
            return [int(text) for text in texts]
        found: list[int] = []
        while (tensor := tensors.get(f"{index}.{len(found) + 2}")) is not None:
            found.append(int(tensor.array.item()))
        return found
    except ValueError:
        raise InvalidArgument(f"{os.fspath(path)}: layer {index} has something else than numbers beside its keys and values") from None


def _cache_tensor(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], name: str) -> Tensor:
    tensor = tensors.get(name)
    if tensor is None:
        raise InvalidArgument(f"{os.fspath(path)} has no tensor '{name}', which its cache classes promise")
    if tensor.array.ndim != 4 or tensor.array.shape[0] != 1:
        raise InvalidArgument(f"{os.fspath(path)}: tensor '{name}' is {list(tensor.array.shape)}, and must be [1, heads, tokens, dim]")
    return tensor


def _exported(array: NDArray[Any], first_token: int, window: int | None) -> NDArray[Any]:
    """The tokens that mlx-lm's cache of a layer holds: with a window as many as that, of which it overwrites the first before it looks at it."""
    count = array.shape[1]
    if window is None or count <= window:
        return array
    kept = array[:, count - window :].copy()
    kept[:, : max(0, first_token - (count - window))] = 0
    return kept


# Tokens


def _tokens_text(tokens: Tokens) -> str:
    fields: dict[str, Any] = {"ids": tokens.ids.tolist()}
    if tokens.media:
        fields["media"] = [[span.digest.hex(), span.first_token, span.count, span.media_offset] for span in tokens.media]
    if tokens.positions is not None:
        fields["positions"] = tokens.positions.tolist()
    return json.dumps(fields, separators=(",", ":"))


def _tokens_of(metadata: Mapping[str, str], count: int) -> Tokens | None:
    text = metadata.get(_TOKENS)
    if text is None:
        return None
    try:
        fields = json.loads(text)
        media = [MediaSpan(*span) for span in fields.get("media", [])]
        tokens = Tokens(fields["ids"], media, fields.get("positions"))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidArgument(f"the cache's own note of its tokens cannot be read: {error}") from error
    if len(tokens) != count:
        raise InvalidArgument(f"the cache's own note has {len(tokens)} tokens, the cache {count}: another program has changed it")
    return tokens
