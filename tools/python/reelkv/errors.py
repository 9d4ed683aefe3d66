"""What goes wrong, by kind. Every message says what to do."""

from __future__ import annotations


class Error(Exception):
    """What all errors of this package are. `code` names the kind, as the library and the command line do: "not-found"."""

    code = "error"


class InvalidArgument(Error, ValueError):
    """An argument that cannot be meant."""

    code = "invalid-argument"


class Closed(InvalidArgument):
    """A store, match, writer or restore was used after it had been closed."""

    code = "closed"


class NotAStore(Error):
    """The folder holds no store, or a file in it is not what it should be."""

    code = "not-a-store"


class StoreExists(Error):
    """A store is already there."""

    code = "store-exists"


class NewerFormat(Error):
    """The store was written by a newer version: update ReelKV."""

    code = "newer-format"


class Damaged(Error):
    """A record or page contradicts itself or its checksum."""

    code = "damaged"


class NotFound(Error, LookupError):
    """There is no model, tenant, video or session of that name."""

    code = "not-found"


class AlreadyExists(Error):
    """The name is taken by something else."""

    code = "already-exists"


class Conflict(Error):
    """Another writer changed the same sequence meanwhile: match again, and append what comes after."""

    code = "conflict"


class ModelMismatch(Error, ValueError):
    """Tensors or tokens that do not fit the model."""

    code = "model-mismatch"


class ReadOnly(Error):
    """The store was opened read-only, or the medium is."""

    code = "read-only"


class NoSpace(Error):
    """The disk is full, or the store reached a limit. What was stored before is still there."""

    code = "no-space"


class QuotaExceeded(Error):
    """The quota is reached, and nothing may be evicted. What was stored before is still there."""

    code = "quota-exceeded"


class PageUnavailable(Error):
    """A page was stored once, and is gone or damaged now. It is a miss: match again, or compute."""

    code = "page-unavailable"


class InUse(Error):
    """Still in use: a model with sequences, say, or a file that a stopped process is opening."""

    code = "in-use"


class StorageFailure(Error):
    """The operating system refused to read or write."""

    code = "io-error"


class Forked(Error, RuntimeError):
    """A handle of the parent process was used in a child after fork(): open the store anew there."""

    code = "forked"


class KeyRequired(Error, PermissionError):
    """The tenant is encrypted and its key was not given, or it has another one by now."""

    code = "key-required"


class WrongKey(Error, PermissionError):
    """Not the tenant's key."""

    code = "wrong-key"


class Cancelled(Error):
    """A restore was ended before it was complete."""

    code = "cancelled"


class InternalError(Error):
    """A mistake in the library: please report it."""

    code = "internal"


class LibraryUnavailable(Error, ImportError):
    """libreelkv was not found, or is too old for this package."""

    code = "library-unavailable"


KINDS: dict[int, type[Error]] = {
    1: InvalidArgument,
    2: NotAStore,
    3: StoreExists,
    4: NewerFormat,
    5: Damaged,
    6: NotFound,
    7: AlreadyExists,
    8: Conflict,
    9: ModelMismatch,
    10: ReadOnly,
    11: NoSpace,
    12: QuotaExceeded,
    13: PageUnavailable,
    14: InUse,
    15: StorageFailure,
    16: Forked,
    17: Cancelled,
    18: InternalError,
    19: KeyRequired,
    20: WrongKey,
}
"""By the library's status, `reelkv_status`."""
