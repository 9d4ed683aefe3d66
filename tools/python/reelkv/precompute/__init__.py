"""Precomputes the caches of video clips, so that chats about them begin where the question begins.

    reelkv-precompute lobby.mp4 --model DIR --store ~/kv --fps 1

is the command; the same from Python:

    engine = reelkv.precompute.load("DIR")
    clip = reelkv.precompute.open_clip("lobby.mp4", reelkv.precompute.Sampling(fps=1))
    with reelkv.Store.open_or_create("~/kv") as store:
        reelkv.precompute.precompute(store, engine, clip, "lobby")

A chat finds what is stored if its inputs are the same: the same frames and processor, and the video first.

    inputs = reelkv.precompute.chat_inputs(engine.processor, clip, messages, add_generation_prompt=True)
    kv = reelkv.hf.Cache(store, engine.model, weights=engine.folder, processor=engine.processor)
    kv.generate(**inputs, session="alice", max_new_tokens=64)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .clip import Clip, Sampling, open_clip
from .errors import Interrupted, PrecomputeError
from .inputs import chat_inputs, prefix_inputs
from .loading import Engine, load
from .progress import Reporter

if TYPE_CHECKING:
    from .job import Options, Result, precompute

__all__ = [
    "Clip",
    "Engine",
    "Interrupted",
    "Options",
    "PrecomputeError",
    "Reporter",
    "Result",
    "Sampling",
    "chat_inputs",
    "load",
    "open_clip",
    "precompute",
    "prefix_inputs",
]


def __getattr__(name: str) -> Any:
    # What needs torch comes when it is asked for: the command's --help, and errors about what is missing, do without.
    if name in ("Options", "Result", "precompute"):
        from . import job

        return getattr(job, name)
    raise AttributeError(f"module 'reelkv.precompute' has no attribute '{name}'")
