"""Models: the shape of each layer's cache, the type of its elements, how keys are rotated, and which weights it is of."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import dtypes, weights as weight_files
from .errors import InvalidArgument

_FINGERPRINT = re.compile(r"(sha256:)?[0-9a-fA-F]{64}")
# where a vision model's config keeps the language model's
_TEXT_CONFIGS = ("text_config", "llm_config")


@dataclass(frozen=True)
class LayerShape:
    """One layer's cache: keys `[kv_heads, tokens, key_dim]`, values `[kv_heads, tokens, value_dim]`."""

    kv_heads: int
    key_dim: int
    value_dim: int
    sliding_window: int | None
    """Tokens that the layer attends to; None for all."""


@dataclass(frozen=True)
class Model:
    """A model to add to a store. Make one with `from_hf_config` or `from_spec`.

    Nothing stored for one fingerprint is ever found for another. So that it stays right, the fingerprint must change with everything
    that changes the cache.
    """

    name: str
    """What the store calls it: 1 to 200 bytes."""
    fingerprint: str
    """64 hexadecimal digits that identify the weights."""
    json: str
    """The text that describes it: a Hugging Face config.json, or a ReelKV model spec."""

    @classmethod
    def from_hf_config(
        cls,
        config: Any,
        weights: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
        name: str | None = None,
        dtype: Any = None,
        variant: str = "",
        cached: bool = True,
        progress: bool | None = None,
    ) -> Model:
        """A model as Hugging Face describes it.

        Args:
            config: a transformers config, its `to_dict()`, a config.json, or a folder that has one. The language model may lie in its
                `text_config`.
            weights: a folder, a file, several files, or 64 hexadecimal digits; None for the files in the folder that `config` names. See
                `weights_fingerprint`.
            name: None for one of the model's type and fingerprint.
            dtype: what the cache's elements are, if not what the config says: `float16`, `bfloat16` or `float32`, as text or as torch's.
            variant: what else changes the cache, such as the quantization that the weights are loaded with. Any text.
            cached: whether digests of weight files are remembered.
            progress: see `weights_fingerprint`.

        Raises:
            InvalidArgument: no config, no weights. What the config itself lacks is told when a store adds the model.
        """
        fields, folder = _read_config(config)
        if dtype is not None:
            fields = _with_dtype(fields, dtypes.name_of(dtype))
        if weights is None:
            if folder is None:
                raise InvalidArgument(
                    "which weights? Pass weights=FOLDER, the weight files, or 64 hexadecimal digits that identify them"
                )
            weights = folder
        fingerprint = (
            weight_files.mixed(_digits(weights), variant)
            if isinstance(weights, str) and _FINGERPRINT.fullmatch(weights)
            else weight_files.weights_fingerprint(weights, variant, cached=cached, progress=progress)
        )
        return cls(name or _default_name(fields, fingerprint), fingerprint, _json(fields))

    @classmethod
    def from_spec(
        cls, spec: Mapping[str, Any] | str | os.PathLike[str], name: str | None = None, fingerprint: str | None = None
    ) -> Model:
        """A model from a ReelKV model spec: a dict, or a JSON file.

        Args:
            name: None for the one in the spec.
            fingerprint: 64 hexadecimal digits; None for the one in the spec.

        Raises:
            InvalidArgument: no name or no fingerprint. What else the spec lacks is told when a store adds the model.
        """
        fields = _read_json(Path(spec)) if isinstance(spec, (str, os.PathLike)) else dict(spec)
        name = name or fields.get("name")
        fingerprint = fingerprint or fields.get("fingerprint")
        if not isinstance(name, str) or not name:
            raise InvalidArgument("the model has no name: pass name=..., or give the spec a 'name'")
        if not isinstance(fingerprint, str) or not _FINGERPRINT.fullmatch(fingerprint):
            raise InvalidArgument(f"model '{name}': the fingerprint must be 64 hexadecimal digits that identify the weights")
        fingerprint = _digits(fingerprint)
        return cls(name, fingerprint, _json({**fields, "fingerprint": fingerprint}))


@dataclass(frozen=True)
class StoredModel:
    """A model that a store has."""

    name: str
    fingerprint: str
    dtype: str
    layers: tuple[LayerShape, ...]
    rotated: tuple[bool, ...]
    """Whether each layer's keys are rotated in a known way, which is undone before they are quantized."""


def name_of(model: Model | StoredModel | str) -> str:
    return model if isinstance(model, str) else model.name


def _digits(fingerprint: str) -> str:
    return fingerprint.removeprefix("sha256:").lower()


def _read_config(config: Any) -> tuple[dict[str, Any], Path | None]:
    """A config's fields, and the folder that it lies in."""
    if isinstance(config, (str, os.PathLike)):
        path = Path(config)
        path = path / "config.json" if path.is_dir() else path
        return _read_json(path), path.parent
    if isinstance(config, Mapping):
        return dict(config), None
    if hasattr(config, "to_dict"):
        return dict(config.to_dict()), None
    raise InvalidArgument(
        f"a config is a transformers config, a dict, or the path of a config.json or its folder, not {type(config).__name__}"
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text())
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidArgument(f"{path} is not valid JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidArgument(f"{path} holds no JSON object")
    return fields


def _with_dtype(fields: dict[str, Any], dtype: str) -> dict[str, Any]:
    changed = {**fields, "dtype": dtype}
    for part in _TEXT_CONFIGS:
        if isinstance(changed.get(part), Mapping):
            changed[part] = {**changed[part], "dtype": dtype}
    return changed


def _default_name(fields: Mapping[str, Any], fingerprint: str) -> str:
    return f"{fields.get('model_type') or 'model'}-{fingerprint[:12]}"


def _json(fields: Mapping[str, Any]) -> str:
    return json.dumps(_plain(fields), allow_nan=False)


def _plain(value: Any) -> Any:
    """What JSON can say: types by their name, and infinities, which configs have for "no limit", as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value).removeprefix("torch.")
