"""The C interface (reelkv.h, version 1) as ctypes knows it: structs, and what every function takes and gives."""

from __future__ import annotations

import ctypes
from ctypes import (
    POINTER,
    Structure,
    c_char_p,
    c_double,
    c_float,
    c_int,
    c_int32,
    c_size_t,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import Any, TypeVar

ABI_VERSION = 1
"""The version of the interface that this package is written against."""

OPEN_READ_ONLY, OPEN_CREATE, OPEN_RELAXED = 1, 2, 4
MATCH_UNCOUNTED = 1
PIN_DEFAULT, PIN_YES, PIN_NO = 0, 1, 2
STOPS = ("complete", "not-stored", "too-lossy", "quarantined", "sliding-window")
"""Why a match ends where it ends, by `REELKV_STOP_...`."""

_Struct = TypeVar("_Struct", bound="SizedStruct")


class SizedStruct(Structure):
    """A struct whose first member says which version of it the caller was compiled with."""

    @classmethod
    def make(cls: type[_Struct], **members: Any) -> _Struct:
        """A struct of defaults, but for the members named."""
        return cls(struct_size=ctypes.sizeof(cls), **members)


class StoreOptions(SizedStruct):
    _fields_ = [("struct_size", c_size_t), ("page_tokens", c_uint32), ("volume_bytes_max", c_uint64)]


class LayerGeometry(SizedStruct):
    _fields_ = [
        ("struct_size", c_size_t),
        ("kv_heads", c_uint32),
        ("key_dim", c_uint32),
        ("value_dim", c_uint32),
        ("rotary_pairing", c_uint32),
        ("sliding_window", c_uint64),
        ("rotary_inverse_frequencies", POINTER(c_float)),
        ("rotary_pair_count", c_size_t),
        ("rotary_sections", c_uint32 * 3),
    ]


class MediaSpan(Structure):
    _fields_ = [
        ("digest", c_uint8 * 32),
        ("first_token", c_uint64),
        ("count", c_uint64),
        ("media_offset", c_uint64),
    ]


class Tokens(SizedStruct):
    _fields_ = [
        ("struct_size", c_size_t),
        ("ids", POINTER(c_int32)),
        ("count", c_size_t),
        ("media", POINTER(MediaSpan)),
        ("media_count", c_size_t),
        ("positions", POINTER(c_int32)),
        ("position_streams", c_uint32),
    ]


class Tensor(Structure):
    _fields_ = [
        ("data", c_void_p),
        ("head_stride", c_uint64),
        ("token_stride", c_uint64),
        ("channel_stride", c_uint64),
        ("heads", c_uint32),
        ("tokens", c_uint32),
        ("dim", c_uint32),
        ("dtype", c_uint32),
    ]


class Layer(Structure):
    _fields_ = [("key", Tensor), ("value", Tensor)]


class Acceptance(SizedStruct):
    _fields_ = [("struct_size", c_size_t), ("key_error_max", c_float), ("value_error_max", c_float)]


class PrefixInfo(SizedStruct):
    _fields_ = [
        ("struct_size", c_size_t),
        ("token_count", c_uint64),
        ("stored_bytes", c_uint64),
        ("engine_state_bytes", c_uint64),
        ("key_error", c_float),
        ("value_error", c_float),
        ("refused_key_error", c_float),
        ("refused_value_error", c_float),
        ("stop", c_uint32),
        ("is_exact", c_uint32),
        ("has_engine_state", c_uint32),
        ("dtype", c_uint32),
        ("layer_count", c_uint32),
    ]


class RestoreOptions(SizedStruct):
    _fields_ = [
        ("struct_size", c_size_t),
        ("first_layer", c_uint32),
        ("layer_count", c_uint32),
        ("first_token", c_uint64),
        ("token_count", c_uint64),
        ("threads", c_uint32),
    ]


class WriterOptions(SizedStruct):
    _fields_ = [
        ("struct_size", c_size_t),
        ("tenant", c_char_p),
        ("profile", c_char_p),
        ("start", c_void_p),
        ("protected_tokens", POINTER(c_uint64)),
        ("protected_count", c_size_t),
        ("checks_token_count", c_uint32),
        ("replaces", c_uint32),
        ("token_count", c_uint64),
    ]


class WriterInfo(SizedStruct):
    _fields_ = [
        ("struct_size", c_size_t),
        ("token_count", c_uint64),
        ("reused_token_count", c_uint64),
        ("stored_bytes", c_uint64),
    ]


class Frame(Structure):
    _fields_ = [("first_token", c_uint64), ("token_count", c_uint64), ("seconds", c_double)]


class FinishOptions(SizedStruct):
    _fields_ = [
        ("struct_size", c_size_t),
        ("engine_state", c_void_p),
        ("engine_state_bytes", c_size_t),
        ("frames", POINTER(Frame)),
        ("frame_count", c_size_t),
        ("provenance", POINTER(c_char_p)),
        ("provenance_count", c_size_t),
        ("pin", c_uint32),
    ]


class Settings(SizedStruct):
    _fields_ = [
        ("struct_size", c_size_t),
        ("quota_bytes", c_uint64),
        ("free_bytes_min", c_uint64),
        ("unused_seconds_max", c_uint64),
        ("policy", c_char_p),
    ]


class TenantKey(ctypes.Structure):
    _fields_ = [("tenant", c_char_p), ("key", ctypes.c_uint8 * 32)]


_HANDLE = POINTER(c_void_p)
_TEXT = POINTER(c_char_p)
# Text that belongs to the caller comes as a bare address, which `reelkv_free` takes back.
_OWNED_TEXT = POINTER(c_void_p)

# name: what it returns (None: a status), what it takes
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "abi_version": (c_uint32, []),
    "version": (c_char_p, []),
    "status_name": (c_char_p, [c_int32]),
    "last_error": (c_char_p, []),
    "free": ("nothing", [c_void_p]),
    "store_create": (None, [c_char_p, POINTER(StoreOptions), _HANDLE]),
    "store_open": (None, [c_char_p, c_uint32, _HANDLE]),
    "store_close": ("nothing", [c_void_p]),
    "store_sync": (None, [c_void_p]),
    "store_page_tokens": (None, [c_void_p, POINTER(c_uint32)]),
    "model_add_json": (None, [c_void_p, c_char_p, c_char_p, c_size_t, c_char_p, _OWNED_TEXT]),
    "models_json": (None, [c_void_p, _OWNED_TEXT]),
    "model_remove": (None, [c_void_p, c_char_p, c_int]),
    "longest_prefix": (
        None,
        [c_void_p, c_char_p, c_char_p, POINTER(Tokens), POINTER(Acceptance), c_uint32, _HANDLE],
    ),
    "sequence_prefix": (None, [c_void_p, c_char_p, c_char_p, c_uint32, _HANDLE]),
    "prefix_describe": (None, [c_void_p, POINTER(PrefixInfo)]),
    "prefix_layer": (None, [c_void_p, c_uint32, POINTER(LayerGeometry)]),
    "prefix_engine_state": (None, [c_void_p, c_void_p, c_size_t]),
    "prefix_tokens": (None, [c_void_p, c_void_p, POINTER(POINTER(Tokens))]),
    "prefix_free": ("nothing", [c_void_p]),
    "lease_take": (None, [c_void_p, c_void_p, _HANDLE]),
    "lease_release": ("nothing", [c_void_p]),
    "restore": (
        None,
        [c_void_p, c_void_p, POINTER(RestoreOptions), POINTER(Layer), c_size_t, POINTER(c_uint64)],
    ),
    "restore_begin": (
        None,
        [c_void_p, c_void_p, POINTER(RestoreOptions), POINTER(Layer), c_size_t, _HANDLE],
    ),
    "restore_wait": (None, [c_void_p, c_uint32, POINTER(c_uint64)]),
    "restore_end": (None, [c_void_p]),
    "writer_open": (None, [c_void_p, c_char_p, c_char_p, POINTER(WriterOptions), _HANDLE]),
    "writer_append": (None, [c_void_p, POINTER(Tokens), POINTER(Layer), c_size_t]),
    "writer_flush": (None, [c_void_p]),
    "writer_describe": (None, [c_void_p, POINTER(WriterInfo)]),
    "writer_finish": (None, [c_void_p, POINTER(FinishOptions)]),
    "writer_close": ("nothing", [c_void_p]),
    "writer_cancel": ("nothing", [c_void_p]),
    "sequences_json": (None, [c_void_p, c_char_p, c_char_p, c_int, _OWNED_TEXT]),
    "sequence_json": (None, [c_void_p, c_char_p, c_char_p, _OWNED_TEXT]),
    "fork": (None, [c_void_p, c_char_p, c_char_p, c_char_p, c_uint64]),
    "truncate": (None, [c_void_p, c_char_p, c_char_p, c_uint64]),
    "remove": (None, [c_void_p, c_char_p, c_char_p]),
    "set_pinned": (None, [c_void_p, c_char_p, c_char_p, c_int]),
    "statistics_json": (None, [c_void_p, _OWNED_TEXT]),
    "settings_get": (None, [c_void_p, POINTER(Settings)]),
    "settings_set": (None, [c_void_p, POINTER(Settings)]),
    "evict": (None, [c_void_p, c_uint64, POINTER(c_uint64)]),
    "compact": (None, [c_void_p, POINTER(c_uint64)]),
    "verify_json": (None, [c_void_p, c_uint32, _OWNED_TEXT]),
    "scrub_json": (None, [c_void_p, c_uint64, _OWNED_TEXT]),
    "scrub_step_json": (None, [c_void_p, c_uint64, _OWNED_TEXT]),
    "tenants_json": (None, [c_void_p, _OWNED_TEXT]),
    "tenant_create": (None, [c_void_p, c_char_p, c_char_p]),
    "tenant_unlock": (None, [c_void_p, c_char_p, c_char_p]),
    "tenant_rekey": (None, [c_void_p, c_char_p, c_char_p]),
    "reseal": (None, [c_void_p]),
    "rebuild_json": (None, [c_char_p, POINTER(TenantKey), c_size_t, _OWNED_TEXT]),
}


def declare(library: ctypes.CDLL) -> None:
    """Tells ctypes the types of every function. Raises AttributeError, naming the first that the library lacks."""
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, f"reelkv_{name}")
        function.argtypes = arguments
        function.restype = None if result == "nothing" else result or c_int32
