"""ReelKV: KV caches of video language models on disk, small, and back fast.

    import reelkv

    model = reelkv.Model.from_hf_config("path/to/model")              # config.json and weights in one folder
    with reelkv.Store.open_or_create("kv") as store:
        store.add_model(model)
        with store.writer("video/lobby", model) as writer:            # precompute, chunk by chunk
            writer.append(ids, layers)                                # [(key, value)]: numpy or torch, [heads, tokens, dim]
        match = store.longest_prefix(ids, model)                      # how much of a prompt is stored?
        layers = match.restore()                                      # or match.restore(into=buffers)

`reelkv.hf` does this for transformers, `reelkv.mlx` for mlx-lm's prompt caches; `reelkv.reader` reads the format without the library.
"""

from ._library import library as _library
from .dtypes import bfloat16_to_float32, float32_to_bfloat16
from .errors import (
    AlreadyExists,
    Cancelled,
    Closed,
    Conflict,
    Damaged,
    Error,
    Forked,
    InternalError,
    InUse,
    InvalidArgument,
    KeyRequired,
    LibraryUnavailable,
    ModelMismatch,
    NewerFormat,
    NoSpace,
    NotAStore,
    NotFound,
    PageUnavailable,
    QuotaExceeded,
    ReadOnly,
    StorageFailure,
    StoreExists,
    WrongKey,
)
from .match import Acceptance, Lease, Match
from .model import LayerShape, Model, StoredModel
from .restoring import RestoredLayer, RestoreJob
from .sequences import Session, StoredSequence, Turn, Video
from .store import Problem, Scrub, Settings, Store, Tenant, Verification, rebuild
from .tokens import MediaSpan, Tokens
from .weights import weights_fingerprint
from .writer import Frame, Writer

__version__ = "0.1.0"


def library_version() -> str:
    """The version of the loaded libreelkv. Raises LibraryUnavailable."""
    return _library().version


def library_path() -> str:
    """Where the loaded libreelkv lies. Raises LibraryUnavailable."""
    return str(_library().path)


__all__ = [
    "Acceptance",
    "AlreadyExists",
    "Cancelled",
    "Closed",
    "Conflict",
    "Damaged",
    "Error",
    "Forked",
    "Frame",
    "InUse",
    "InternalError",
    "InvalidArgument",
    "KeyRequired",
    "LayerShape",
    "Lease",
    "LibraryUnavailable",
    "Match",
    "MediaSpan",
    "Model",
    "ModelMismatch",
    "NewerFormat",
    "NoSpace",
    "NotAStore",
    "NotFound",
    "PageUnavailable",
    "Problem",
    "QuotaExceeded",
    "ReadOnly",
    "RestoreJob",
    "RestoredLayer",
    "Scrub",
    "Session",
    "Settings",
    "StorageFailure",
    "Store",
    "StoreExists",
    "StoredModel",
    "StoredSequence",
    "Tenant",
    "Tokens",
    "Turn",
    "Verification",
    "Video",
    "Writer",
    "WrongKey",
    "bfloat16_to_float32",
    "float32_to_bfloat16",
    "library_path",
    "library_version",
    "rebuild",
    "weights_fingerprint",
]
