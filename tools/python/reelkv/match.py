"""What a look-up found: the stored beginning of a token sequence, to be restored, continued or kept."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from . import _abi, dtypes, restoring
from ._handles import Handle
from ._library import library
from ._memory import Array
from .errors import InvalidArgument
from .model import LayerShape
from .restoring import Part, RestoredLayer, RestoreJob
from .tokens import Tokens

if TYPE_CHECKING:
    from .store import Store


@dataclass(frozen=True)
class Acceptance:
    """How lossy a page may be: the greatest NMSE (mean squared error by mean square) of its keys and of its values."""

    key_error_max: float
    value_error_max: float

    def __post_init__(self) -> None:
        if not (self.key_error_max >= 0 and self.value_error_max >= 0):
            raise InvalidArgument(f"an error bound cannot be below 0: {self}")


Accepting: TypeAlias = "Acceptance | Literal['any', 'exact']"


def native_acceptance(accept: Accepting) -> _abi.Acceptance | None:
    if accept == "any":
        return None
    if accept == "exact":
        return _abi.Acceptance.make()
    if not isinstance(accept, Acceptance):
        raise InvalidArgument(f"accept must be 'any', 'exact' or an Acceptance, not {accept!r}")
    if accept.key_error_max == 0 and accept.value_error_max == 0:
        return _abi.Acceptance.make()
    return _abi.Acceptance.make(key_error_max=accept.key_error_max, value_error_max=accept.value_error_max)


class Match:
    """The stored beginning of a token sequence. It may be empty: a miss is no error.

    It holds no lock. What it names can be evicted by anyone who needs the room, and restoring then raises PageUnavailable; take a
    `lease` to keep it. Its length is its number of tokens.

    Attributes:
        token_count: tokens stored, exact to the token.
        stop: why there are no more: "complete" (all asked for are stored), "not-stored", "too-lossy", "quarantined", or
            "sliding-window" (the sliding-window layers' last tokens are not stored at any later point).
        is_exact: whether every page is bit-identical to what was appended.
        key_error, value_error: NMSE, mean over layers and tokens; 0 when every page is exact.
        refused_error: those of the next page where `stop` is "too-lossy"; None elsewhere.
        stored_bytes: bytes of the page images that hold these tokens.
        layers: the shape of each layer's cache.
        dtype: what the cache's elements are: "float16", "bfloat16" or "float32".
        model: the model's name.
        tenant: whose cache it is; None for the default tenant's.
    """

    def __init__(self, store: Store, pointer: int, model: str, tenant: str | None):
        self._store = store
        self._handle = Handle("match", pointer, "prefix_free")
        self.model = model
        self.tenant = tenant
        info = _abi.PrefixInfo.make()
        with self._handle as prefix:
            library().call("prefix_describe", prefix, ctypes.byref(info))
            self.layers = tuple(_layer_shape(prefix, layer) for layer in range(info.layer_count))
        self.token_count: int = info.token_count
        self.stop: str = _abi.STOPS[info.stop] if info.stop < len(_abi.STOPS) else f"unknown ({info.stop})"
        self.is_exact = bool(info.is_exact)
        self.key_error: float = info.key_error
        self.value_error: float = info.value_error
        self.refused_error = (
            (float(info.refused_key_error), float(info.refused_value_error)) if self.stop == "too-lossy" else None
        )
        self.stored_bytes: int = info.stored_bytes
        self.dtype = dtypes.NAMES.get(info.dtype, str(info.dtype))
        self._engine_state_bytes: int | None = info.engine_state_bytes if info.has_engine_state else None

    def __len__(self) -> int:
        return self.token_count

    def __repr__(self) -> str:
        lossy = "exact" if self.is_exact else f"errors {self.key_error:.3g}, {self.value_error:.3g}"
        return f"<reelkv.Match: {self.token_count} tokens of {self.model}, {self.stop}, {lossy}>"

    @property
    def store(self) -> Store:
        return self._store

    @property
    def engine_state(self) -> bytes | None:
        """What the engine asked to keep beside K and V after exactly these tokens; None when nothing was kept there."""
        if self._engine_state_bytes is None:
            return None
        buffer = ctypes.create_string_buffer(max(1, self._engine_state_bytes))
        with self._handle as prefix:
            library().call("prefix_engine_state", prefix, buffer, len(buffer))
        return buffer.raw[: self._engine_state_bytes]

    def tokens(self) -> Tokens:
        """The tokens. Ids inside media spans read as -1.

        Raises:
            PageUnavailable: pages were removed meanwhile.
        """
        native = ctypes.POINTER(_abi.Tokens)()
        with self._store._handle as store, self._handle as prefix:
            library().call("prefix_tokens", store, prefix, ctypes.byref(native))
        try:
            return Tokens._from_native(native.contents)
        finally:
            library().release("free", ctypes.cast(native, ctypes.c_void_p))

    def lease(self) -> Lease:
        """Keeps these tokens from being evicted by any process until the lease is closed or this process ends."""
        pointer = ctypes.c_void_p()
        with self._store._handle as store, self._handle as prefix:
            library().call("lease_take", store, prefix, ctypes.byref(pointer))
        return Lease(_pointer(pointer))

    def restore(
        self,
        layers: Part = None,
        tokens: Part = None,
        into: Sequence[tuple[Array | None, Array | None]] | None = None,
        threads: int | None = None,
        dtype: Any = None,
        as_torch: bool = False,
        progress: bool | None = None,
    ) -> list[RestoredLayer]:
        """Reads keys and values into memory, and returns when they are complete.

        Args:
            layers: which layers: a slice or range; None for all.
            tokens: which tokens of the match: a slice or range; None for all.
            into: where to write: for each layer asked for a pair (key, value) of numpy arrays or torch CPU tensors, `[heads, tokens, dim]`
                or `[1, heads, tokens, dim]`, with any strides, written in place; None instead of a tensor that is not wanted. Values are
                converted to the tensors' own type.
            threads: how many threads decode; None for one per core.
            dtype: without `into`, what the elements shall be; None for the model's own type. bfloat16 comes as bits, in uint16, unless
                `as_torch`.
            as_torch: without `into`, whether to make torch tensors.
            progress: None for a bar if tqdm is installed and standard error is a terminal, False for none, True for one in any case.

        Returns:
            For each layer asked for a pair (key, value), `[heads, tokens, dim]`, with a `first_token` from which on the layer holds all
            tokens: 0, but for sliding-window layers that have dropped some before. There, `into` is left as it was; new memory is zero.

        Raises:
            PageUnavailable: a page was evicted or fails its checksum: match again, or compute.
            ModelMismatch: tensors of another shape.
            InvalidArgument: tensors that cannot be written in place, ranges out of bounds.
        """
        plan = restoring.plan(self, layers, tokens, into, threads, dtype, as_torch)
        return restoring.run(self, plan, progress)

    def restoring(
        self,
        into: Sequence[tuple[Array | None, Array | None]] | None = None,
        layers: Part = None,
        tokens: Part = None,
        threads: int | None = None,
        dtype: Any = None,
        as_torch: bool = False,
    ) -> RestoreJob:
        """The same in the background, for an engine that starts on a layer while the next ones are decoded. Use it in `with`:

            with match.restoring(into=buffers) as job:
                for restored in job:
                    engine.start(restored.layer)
        """
        return RestoreJob(self, restoring.plan(self, layers, tokens, into, threads, dtype, as_torch))

    def __copy__(self) -> Match:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Match:
        return self  # it does not change

    def __reduce__(self) -> str:
        raise TypeError("a match is of this process's open store and cannot be pickled: match again where it is needed")

    def close(self) -> None:
        """Lets go of it now, not when nothing refers to it any more."""
        self._handle.close()

    def __enter__(self) -> Match:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Lease:
    """Keeps a match from being evicted. Use it in `with`, or close it."""

    def __init__(self, pointer: int):
        self._handle = Handle("lease", pointer, "lease_release")

    def close(self) -> None:
        self._handle.close()

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _pointer(pointer: ctypes.c_void_p) -> int:
    """The address that a function gave. A function that succeeds gives one."""
    assert pointer.value is not None
    return pointer.value


def _layer_shape(prefix: int, layer: int) -> LayerShape:
    geometry = _abi.LayerGeometry.make()
    library().call("prefix_layer", prefix, layer, ctypes.byref(geometry))
    return LayerShape(geometry.kv_heads, geometry.key_dim, geometry.value_dim, geometry.sliding_window or None)
