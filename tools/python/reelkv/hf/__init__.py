"""ReelKV for transformers: a conversation's cache, found, restored, continued and saved.

    kv = reelkv.hf.Cache(store, model)
    inputs = processor(text=prompt, videos=video, return_tensors="pt")
    output = kv.generate(**inputs, session="alice", max_new_tokens=64)

`generate` is the model's own, but for what is stored already: it finds the longest stored prefix of the prompt, restores it, computes the
rest, and saves the turn. `match`, `restore` and `save` do the steps one by one.
"""

try:
    import torch as _torch
    import transformers as _transformers
except ImportError as error:
    raise ImportError(f"reelkv.hf needs torch and transformers 5 ({error}): pip install 'reelkv[hf]'") from error

from .cache import Cache, NotSaved
from .dynamic import cache_layers
from .fingerprint import state_fingerprint

del _torch, _transformers

__all__ = ["Cache", "NotSaved", "cache_layers", "state_fingerprint"]
