"""Runs a model's language model over a prompt, a chunk at a time.

A video language model's forward pass embeds text and frames, works out positions, and calls its language model once. That call is
taken down before it happens, whatever the model's class; then it is made in chunks. A call with an argument whose meaning is not
known here, such as a mask that lets the tokens of a frame see each other, is made whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import PrecomputeError

if TYPE_CHECKING:
    import torch


class _TakenDown(Exception):
    """Ends the model's forward pass where it would call its language model."""


@dataclass(frozen=True)
class DecoderCall:
    """A call of a model's language model over a whole prompt.

    Attributes:
        embeddings: `[1, tokens, width]`
        positions: what goes to `position_ids`, `[..., tokens]`; None where the language model counts.
        deepstack: Qwen3-VL's features of frames that are added behind the first layers, each `[visual tokens, width]`.
        visual: which tokens those belong to, `[1, tokens]`.
        others: other arguments, which are not understood.
        can_be_cut: whether it can be made in chunks.
    """

    decoder: Any
    embeddings: torch.Tensor
    positions: torch.Tensor | None
    deepstack: list[torch.Tensor] | None
    visual: torch.Tensor | None
    others: dict[str, Any]
    can_be_cut: bool

    @property
    def token_count(self) -> int:
        return int(self.embeddings.shape[1])

    def run(self, cache: Any, tokens: range) -> Any:
        """Computes tokens that follow those in the cache, which is extended by them.

        Returns:
            What the language model returns.
        """
        if cache.get_seq_length() != tokens.start:
            raise ValueError(f"the cache holds {cache.get_seq_length()} tokens, not the {tokens.start} before the chunk")
        if not self.can_be_cut and tokens != range(self.token_count):
            raise ValueError("this call cannot be cut")
        part = slice(tokens.start, tokens.stop)
        arguments: dict[str, Any] = {"inputs_embeds": self.embeddings[:, part], **self.others}
        if self.positions is not None:
            arguments["position_ids"] = self.positions[..., part]
        if self.deepstack is not None and self.visual is not None:
            before, count = int(self.visual[:, : part.start].sum()), int(self.visual[:, part].sum())
            arguments["visual_pos_masks"] = self.visual[:, part]
            arguments["deepstack_visual_embeds"] = [layer[before : before + count] for layer in self.deepstack]
        return self.decoder(past_key_values=cache, use_cache=True, **arguments)

    def chunks(self, cache: Any, chunk_tokens: int) -> Iterator[range]:
        """Computes the tokens that the cache lacks, and yields which have been, a chunk at a time.

        Chunks end at multiples of `chunk_tokens`, so that a prefill that goes on from such a place cuts as one that never stopped, and
        comes to the same bits.
        """
        done = cache.get_seq_length()
        while done < self.token_count:
            end = min(self.token_count, (done // chunk_tokens + 1) * chunk_tokens) if self.can_be_cut else self.token_count
            self.run(cache, range(done, end))
            yield range(done, end)
            done = end


def take_down(model: Any, inputs: Mapping[str, Any], **more: Any) -> DecoderCall:
    """The call of its language model that a model would make for these inputs, into an empty cache.

    What the model notes on the way, such as Qwen2.5-VL's `rope_deltas`, is noted.
    """
    decoder = model.get_decoder()
    taken: dict[str, Any] = {}

    def take(_: Any, positional: tuple[Any, ...], arguments: dict[str, Any]) -> None:
        if positional:
            raise PrecomputeError(f"{type(model).__name__} calls its language model in a way that is not known here")
        taken.update(arguments)
        raise _TakenDown

    hook = decoder.register_forward_pre_hook(take, with_kwargs=True)
    try:
        model(**inputs, **more, use_cache=True)
    except _TakenDown:
        pass
    finally:
        hook.remove()
    if taken.get("inputs_embeds") is None:
        raise PrecomputeError(f"{type(model).__name__} does not give embeddings to its language model: it cannot be run in parts")
    return _understood(decoder, taken)


# What says how to return, not what to compute.
_IGNORED = {"input_ids", "past_key_values", "use_cache", "return_dict", "logits_to_keep", "cache_position", "output_attentions", "output_hidden_states"}


def _understood(decoder: Any, arguments: dict[str, Any]) -> DecoderCall:
    others = {name: value for name, value in arguments.items() if value is not None and name not in _IGNORED}
    embeddings = others.pop("inputs_embeds")
    tokens = embeddings.shape[1]
    mask = others.get("attention_mask")
    if mask is not None and getattr(mask, "shape", None) == (1, tokens) and bool(mask.all()):
        del others["attention_mask"]  # nothing is masked; the language model makes its own causal mask
    positions = others.get("position_ids")
    if positions is not None and positions.shape[-1] == tokens:
        del others["position_ids"]
    else:
        positions = None
    deepstack, visual = others.get("deepstack_visual_embeds"), others.get("visual_pos_masks")
    if deepstack is not None and visual is not None:
        del others["deepstack_visual_embeds"], others["visual_pos_masks"]
    is_causal = not getattr(decoder.config, "use_bidirectional_attention", None)
    return DecoderCall(decoder, embeddings, positions, deepstack, visual, others, can_be_cut=is_causal and not others)
