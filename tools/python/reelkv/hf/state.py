"""What a model keeps beside its cache, and which positions its tokens had.

Qwen's vision models rotate keys by three streams of positions, and keep outside of the cache how far positions are ahead of indices
(`rope_deltas`). A cache without that goes on at the wrong positions.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InvalidArgument

_VERSION = 1
STREAMS = 3


_RECORD = "_reelkv_positions"


@dataclass
class _Record:
    """The positions of a cache's tokens, piece by piece, and the deltas that its model had then. It stays with the cache, also in copies."""

    pieces: list[tuple[int, Any]]
    deltas: Any


class PositionKeeper:
    """The positions that a model gives its tokens. For models with one stream of them there is nothing to keep."""

    def __init__(self, model: Any):
        self._holder = next((part for part in model.modules() if hasattr(part, "rope_deltas") and hasattr(part, "get_rope_index")), None)
        self._hook: Any = None
        if self._holder is not None:
            self._hook = model.get_decoder().register_forward_hook(self._note, with_kwargs=True)

    @property
    def has_streams(self) -> bool:
        """Whether tokens have three positions, and the model keeps state beside its cache."""
        return self._holder is not None

    def close(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    # What a model would do

    def positions_of(self, inputs: Mapping[str, Any], ids: Any) -> tuple[Any, Any]:
        """Positions `[3, tokens]` of a whole prompt, and its deltas `[1, 1]`, as the model computes them from its inputs."""
        if self._holder is None:
            return None, None
        count = ids.shape[1]
        known = set(inspect.signature(self._holder.get_rope_index).parameters)
        given = {name: value for name, value in inputs.items() if name in known and value is not None and name != "input_ids"}
        kinds = given.get("mm_token_type_ids")
        has_grid = any(name.endswith("_grid_thw") for name in given)
        if not has_grid or ("mm_token_type_ids" in known and kinds is None):
            plain = torch.arange(count, device=ids.device).expand(STREAMS, count)
            return plain, torch.zeros(1, 1, dtype=torch.long, device=ids.device)
        if kinds is not None:  # text that was generated has none
            given["mm_token_type_ids"] = torch.nn.functional.pad(torch.as_tensor(kinds), (0, count - kinds.shape[1]))
        given["attention_mask"] = torch.ones_like(ids)
        positions, deltas = self._holder.get_rope_index(input_ids=ids, **given)
        return positions[:, 0], deltas

    def set_deltas(self, deltas: Any) -> None:
        if self._holder is not None:
            self._holder.rope_deltas = deltas

    # What it did

    def _note(self, decoder: Any, arguments: Any, named: Mapping[str, Any], output: Any) -> None:
        """After every pass through the decoder: which positions it was given, for which cache."""
        past = getattr(output, "past_key_values", None) or named.get("past_key_values")
        embeddings = named.get("inputs_embeds")
        if past is None or embeddings is None or embeddings.shape[0] != 1:
            return
        count = embeddings.shape[1]
        start = past.get_seq_length() - count
        positions = named.get("position_ids")
        if positions is None:
            positions = torch.arange(start, start + count).expand(STREAMS, 1, count)
        elif positions.ndim == 2:
            positions = positions.expand(STREAMS, *positions.shape)
        record: _Record | None = getattr(past, _RECORD, None)
        if record is None:
            record = _Record([], None)
            setattr(past, _RECORD, record)
        record.pieces.append((start, positions[-STREAMS:, 0].detach()))
        assert self._holder is not None
        record.deltas = self._holder.rope_deltas

    def seed(self, past: Any, positions: NDArray[np.int32] | None, count: int) -> None:
        """Says which positions the first tokens of a restored cache have: None for their indices."""
        if self._holder is None:
            return
        known = np.arange(count) if positions is None else positions[:, :count]
        tensor = torch.from_numpy(np.broadcast_to(known, (STREAMS, count)).astype(np.int64))
        setattr(past, _RECORD, _Record([(0, tensor)], self._holder.rope_deltas))

    def recorded(self, past: Any, count: int) -> NDArray[np.int32] | None:
        """The positions `[3, count]` of a cache's tokens, as they were; None if some were not seen."""
        record: _Record | None = getattr(past, _RECORD, None)
        if record is None:
            return None
        known = np.zeros((STREAMS, count), np.int32)
        end = 0
        for start, piece in record.pieces:
            if start > end:
                return None
            values = piece.cpu().numpy()[:, : max(0, count - start)]
            known[:, start : start + values.shape[1]] = values
            end = start + piece.shape[1]  # a cache that was cropped goes on from before
        return known if end >= count else None

    # As bytes beside a cache

    def encoded(self, past: Any) -> bytes | None:
        """The engine state of a cache; None where the model keeps none."""
        if self._holder is None:
            return None
        record: _Record | None = getattr(past, _RECORD, None)
        deltas = record.deltas if record is not None else self._holder.rope_deltas
        if deltas is None:
            return None
        return json.dumps({"reelkv.hf": _VERSION, "rope_deltas": deltas.tolist()}).encode()

    def restore(self, state: bytes | None, positions: NDArray[np.int32] | None, count: int, device: Any) -> None:
        """Puts the state back into the model; where none was kept, what it must have been after `count` tokens of those positions.

        Raises:
            InvalidArgument: another engine's state.
        """
        if self._holder is None:
            return
        if state is not None:
            deltas = _decoded(state)
        else:
            ahead = 0 if positions is None or count == 0 else int(positions[:, :count].max()) + 1 - count
            deltas = [[ahead]]
        self._holder.rope_deltas = torch.tensor(deltas, dtype=torch.long, device=device)


def _decoded(state: bytes) -> Any:
    try:
        fields = json.loads(state)
        version = fields["reelkv.hf"]
        deltas = fields["rope_deltas"]
    except (ValueError, KeyError, TypeError):
        raise InvalidArgument(
            "the engine state of this sequence is not one that reelkv.hf wrote: restore it with the engine that did, or match a prefix of "
            "its tokens"
        ) from None
    if version != _VERSION:
        raise InvalidArgument(f"the engine state has version {version}, this package knows {_VERSION}: update reelkv")
    return deltas
