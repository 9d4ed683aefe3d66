"""A prompt as a processor gives it, and what it means to a store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..errors import InvalidArgument
from ..tokens import MediaSpan, Tokens
from .media import INPUTS, MediaInputs
from .state import PositionKeeper

_OTHER_INPUTS = frozenset(("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids"))
PROMPT_INPUTS = INPUTS | _OTHER_INPUTS
"""What a processor may return. The rest of what `generate` is given is the model's."""


class Prompt:
    """One sequence's inputs.

    Attributes:
        ids: `[1, tokens]`.
        tokens: as a store identifies them.
        positions, deltas: `[3, tokens]` and `[1, 1]`, for models that have several streams of positions; None for others.
    """

    def __init__(self, inputs: Mapping[str, Any], config: Any, keeper: PositionKeeper, processor_settings: str):
        unknown = [name for name, value in inputs.items() if name not in PROMPT_INPUTS and value is not None]
        if unknown:
            raise InvalidArgument(f"'{unknown[0]}' is no input that reelkv.hf can identify a prompt by: it knows {', '.join(sorted(PROMPT_INPUTS))}")
        self.inputs = {name: value for name, value in inputs.items() if value is not None}
        self.ids = _ids(self.inputs)
        self._media = MediaInputs(self.inputs, config, processor_settings)
        spans = self._media.find(self.ids[0].tolist())
        self.positions, self.deltas = keeper.positions_of(self.inputs, self.ids)
        self.tokens = Tokens(self.ids, spans, self.positions)

    def __len__(self) -> int:
        return len(self.tokens)

    def after(self, count: int) -> dict[str, Any]:
        """What `generate` needs to go on after `count` restored tokens: all ids, and the media behind those tokens."""
        given = {name: value for name, value in self.inputs.items() if name in _OTHER_INPUTS}
        given["attention_mask"] = torch.ones_like(self.ids)
        given |= {"input_ids": self.ids} | self._media.without_first(count)
        if self.positions is not None:
            text = torch.arange(len(self), device=self.ids.device)
            given["position_ids"] = torch.cat([text[None], self.positions])[:, None]
        return given


def usable_count(tokens: Tokens, count: int) -> int:
    """The greatest number of tokens up to `count` after which a model can go on: it takes an image or video whole, so that a match that
    ends inside of one is cut back to before it."""
    for first, end in reversed(_extents(tokens.media)):
        if first < count < end:
            return first
    return count


def _extents(spans: tuple[MediaSpan, ...]) -> list[tuple[int, int]]:
    """First and end of each medium's placeholders, text in between included."""
    extents: list[tuple[int, int]] = []
    last: MediaSpan | None = None
    for span in spans:
        if last is not None and span.digest == last.digest and span.media_offset == last.media_offset + last.count:
            extents[-1] = (extents[-1][0], span.end)
        else:
            extents.append((span.first_token, span.end))
        last = span
    return extents


def _ids(inputs: Mapping[str, Any]) -> Any:
    ids = inputs.get("input_ids")
    if ids is None:
        raise InvalidArgument("there are no input_ids")
    ids = torch.as_tensor(ids)
    if ids.ndim == 1:
        ids = ids[None]
    if ids.ndim != 2 or ids.shape[0] != 1:
        raise InvalidArgument(f"input_ids must be [1, tokens], not {list(ids.shape)}: give one sequence at a time")
    mask = inputs.get("attention_mask")
    if mask is not None and not bool((torch.as_tensor(mask) == 1).all()):
        raise InvalidArgument("the attention mask hides tokens: give a prompt without padding")
    return ids.long()
