"""Stores: folders that keep caches."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Literal

from . import _abi
from ._handles import Handle
from ._library import encoded, library, unsigned
from .errors import InvalidArgument
from .match import Accepting, Match, native_acceptance
from .model import LayerShape, Model, StoredModel, name_of
from .sequences import Session, Video
from .tokens import Tokens, TokensLike
from .writer import DEFAULT_PROFILE, Writer, open_writer

Path = str | os.PathLike[str]
ModelLike = Model | StoredModel | str
Key = bytes | str | os.PathLike[str]
"""An encrypted tenant's key: its 32 bytes, or a file that holds them or 64 hexadecimal digits."""


@dataclass(frozen=True)
class Settings:
    """What bounds a store, for every process that uses it. None: no bound."""

    quota_bytes: int | None
    """Of all files together."""
    free_bytes_min: int | None
    """What the file system must keep free."""
    unused_seconds_max: int | None
    """After which an unused page is dropped."""
    policy: str
    """In which order pages are evicted: "adaptive", "lru", "lfu", "cost" or "fifo"."""


@dataclass(frozen=True)
class Tenant:
    """A tenant, and whether it is encrypted."""

    name: str
    is_encrypted: bool
    is_unlocked: bool
    """Whether what it holds can be read: it is not encrypted, or this process was given its key."""
    key_generation: int | None
    """Which of its keys is in effect, counted from 1; None where it is not encrypted."""
    has_earlier_keys: bool | None
    """Whether pages are still encrypted with an earlier key, until `Store.reseal`; None while it is locked."""
    live_pages: int
    """Page images that are stored for it."""
    live_bytes: int
    """Bytes of them."""
    created: datetime


@dataclass(frozen=True)
class Problem:
    """Something in a store that is not as it should be."""

    kind: str
    subject: str
    message: str


@dataclass(frozen=True)
class Verification:
    """What a check of a whole store found."""

    is_sound: bool
    """Whether nothing is wrong, or, after a repair, nothing is any more."""
    pages: int
    problems: tuple[Problem, ...]
    changes: tuple[Problem, ...] = ()
    """What a repair dropped, cut, marked or made anew."""


@dataclass(frozen=True)
class Scrub:
    """What a scrub, or a step of one, read."""

    pages: int
    bytes: int
    damaged: int
    """Pages that failed a checksum."""
    is_finished: bool
    """Whether every page was read since the round began."""


class Store:
    """A folder that keeps caches. Any number of threads and processes may use it at once; each process opens it for itself, after fork() too.

    Close it, or use it in `with`. Matches, restores and writers that are open then can still be used, but no new ones made.

    Functions that take a model take its name, too; `tenant` is None for the default one.
    """

    def __init__(self, path: Path, read_only: bool = False, relaxed: bool = False):
        """Opens a store.

        Args:
            read_only: nothing in the folder is changed, and uses are not counted.
            relaxed: writes do not wait for the last flush. A crash of the machine, not of the process, may then lose the newest pages and names;
                what is lost is a miss, never a wrong hit.

        Raises:
            NotAStore: there is none.
            NewerFormat: a newer version wrote it.
            InUse: this process has it open read-only, or with another durability.
        """
        self._open(path, (_abi.OPEN_READ_ONLY if read_only else 0) | (_abi.OPEN_RELAXED if relaxed else 0))

    @classmethod
    def open_or_create(cls, path: Path, relaxed: bool = False) -> Store:
        """Opens a store, or makes one with default options where the folder does not exist or is empty.

        Args:
            relaxed: see `Store`.
        """
        store = cls.__new__(cls)
        store._open(path, _abi.OPEN_CREATE | (_abi.OPEN_RELAXED if relaxed else 0))
        return store

    @classmethod
    def create(cls, path: Path, page_tokens: int | None = None, volume_bytes_max: int | None = None) -> Store:
        """Makes a store in a folder that does not exist or is empty, and opens it.

        Args:
            page_tokens: tokens of a full page, a multiple of 32 up to 4096; None for 256.
            volume_bytes_max: bytes at which a file of pages is closed and the next begun; None for 256 MiB.

        Raises:
            StoreExists: a store is already there.
        """
        options = _abi.StoreOptions.make(
            page_tokens=unsigned(page_tokens or 0, "page_tokens", bits=32),
            volume_bytes_max=unsigned(volume_bytes_max or 0, "volume_bytes_max"),
        )
        store = cls.__new__(cls)
        pointer = ctypes.c_void_p()
        library().call("store_create", _path(path), ctypes.byref(options), ctypes.byref(pointer))
        store._adopt(path, pointer)
        return store

    def _open(self, path: Path, flags: int) -> None:
        pointer = ctypes.c_void_p()
        library().call("store_open", _path(path), flags, ctypes.byref(pointer))
        self._adopt(path, pointer)

    def _adopt(self, path: Path, pointer: ctypes.c_void_p) -> None:
        assert pointer.value is not None
        self.path = os.fspath(path)
        self._handle = Handle("store", pointer.value, "store_close")

    def tenants(self) -> list[Tenant]:
        """All tenants, by name. One that is not encrypted comes with what is first stored for it."""
        with self._handle as store:
            listed = library().json("tenants_json", store)
        return [_tenant(fields) for fields in listed]

    def create_tenant(self, name: str, key: Key | None = None) -> None:
        """Makes a tenant that holds nothing yet; with a key, one whose tokens and tensors are encrypted. Whether it is never changes.

        Raises:
            AlreadyExists: the name is taken.
        """
        with self._handle as store:
            library().call("tenant_create", store, encoded(name, "tenant"), None if key is None else _key(key))

    def unlock(self, key: Key, tenant: str | None = None) -> None:
        """Gives this process the key of an encrypted tenant, for everything that has the store open in it. A tenant that is not there yet is made
        encrypted with it when something is first stored.

        Raises:
            WrongKey: it is not the tenant's.
            InvalidArgument: the tenant is not encrypted, or `key` is none.
        """
        with self._handle as store:
            library().call("tenant_unlock", store, None if tenant is None else encoded(tenant, "tenant"), _key(key))

    def rekey(self, key: Key, tenant: str | None = None) -> None:
        """Gives an encrypted tenant, which is unlocked, another key. It is in effect at once; pages are encrypted anew by `reseal`."""
        with self._handle as store:
            library().call("tenant_rekey", store, None if tenant is None else encoded(tenant, "tenant"), _key(key))

    def reseal(self) -> None:
        """Compacts the store, and encrypts the pages of unlocked tenants anew that are still encrypted with an earlier key."""
        with self._handle as store:
            library().call("reseal", store)

    def close(self) -> None:
        """Closes it. Once is enough, more does no harm."""
        self._handle.close()

    def sync(self) -> None:
        """Waits until everything that this process has written is on the disk. Where the store is not `relaxed` it is already."""
        with self._handle as store:
            library().call("store_sync", store)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<reelkv.Store {self.path!r}>"

    @property
    def page_tokens(self) -> int:
        """Tokens of its full pages."""
        count = ctypes.c_uint32()
        with self._handle as store:
            library().call("store_page_tokens", store, ctypes.byref(count))
        return count.value

    # Models

    def add_model(self, model: Model) -> list[str]:
        """Registers a model; the same one under the same name again changes nothing.

        Returns:
            What a person should know, a sentence each: a rotation that cannot be undone, say.

        Raises:
            AlreadyExists: another model has the name.
            InvalidArgument: what its config or spec lacks.
        """
        text = model.json.encode()
        with self._handle as store:
            warnings = library().text(
                "model_add_json",
                store,
                encoded(model.name, "the model's name"),
                text,
                len(text),
                encoded(model.fingerprint, "fingerprint"),
            )
        return warnings.splitlines()

    def models(self) -> list[StoredModel]:
        """All models, by name."""
        with self._handle as store:
            listed = library().json("models_json", store)
        return [_stored_model(fields) for fields in listed]

    def remove_model(self, model: ModelLike, deleting_sequences: bool = False) -> None:
        """Removes a model.

        Raises:
            InUse: it has videos or sessions, which are not to be deleted with it.
        """
        with self._handle as store:
            library().call("model_remove", store, encoded(name_of(model), "model"), deleting_sequences)

    # Matching and writing

    def longest_prefix(
        self,
        tokens: TokensLike,
        model: ModelLike,
        tenant: str | None = None,
        accept: Accepting = "any",
        counted: bool = True,
    ) -> Match:
        """Finds the longest stored beginning of a token sequence, exact to the token.

        Args:
            tokens: `Tokens`, or bare ids; the whole sequence, from its first token.
            accept: how lossy a page may be: "any", "exact", or an `Acceptance`. The match stops before a page that is more so.
            counted: whether that counts as a use of the pages, for the order of eviction and the statistics.

        Returns:
            The match, of 0 tokens if nothing is stored.

        Raises:
            NotFound: no such model.
        """
        native, keeps = Tokens.of(tokens)._native()
        acceptance = native_acceptance(accept)
        pointer = ctypes.c_void_p()
        name = name_of(model)
        with self._handle as store:
            library().call(
                "longest_prefix",
                store,
                encoded(name, "model"),
                _optional(tenant, "tenant"),
                ctypes.byref(native),
                None if acceptance is None else ctypes.byref(acceptance),
                0 if counted else _abi.MATCH_UNCOUNTED,
                ctypes.byref(pointer),
            )
        del keeps
        assert pointer.value is not None
        return Match(self, pointer.value, name, tenant)

    def sequence_prefix(
        self, sequence: str, tenant: str | None = None, model: str | None = None, counted: bool = True
    ) -> Match:
        """What a video or session consists of. `sequence`: "video/NAME" or "session/NAME"; `model`: its name, if known.

        Raises:
            NotFound: no such sequence.
        """
        if model is None:
            model = str(self._sequence_fields(sequence, tenant)["model"])
        pointer = ctypes.c_void_p()
        with self._handle as store:
            library().call(
                "sequence_prefix",
                store,
                encoded(sequence, "name"),
                _optional(tenant, "tenant"),
                0 if counted else _abi.MATCH_UNCOUNTED,
                ctypes.byref(pointer),
            )
        assert pointer.value is not None
        return Match(self, pointer.value, model, tenant)

    def writer(
        self,
        sequence: str,
        model: ModelLike,
        profile: str = DEFAULT_PROFILE,
        tenant: str | None = None,
        start: Match | None = None,
        protected_tokens: Iterable[int] | None = None,
        after: int | None = None,
        replace: bool = False,
    ) -> Writer:
        """Opens a writer.

        Args:
            sequence: "video/NAME", which is written from its first token, or "session/NAME", which goes on from its last.
            profile: how full pages are stored: "exact", "vidkv-1.5-1.58", ...; the README lists them.
            start: what a new session starts with: a match. That copies nothing.
            protected_tokens: indices in the sequence of tokens to store more precisely.
            after: how many tokens the caller's cache holds before those that it will append; None not to check.
            replace: whether a video of the name with other content is replaced when the write finishes.

        Raises:
            NotFound: no such model.
            Conflict: not `after` tokens are stored: match the whole sequence, and append what comes after.
            InvalidArgument: `start` for a session that exists.
            ModelMismatch: the session or `start` belongs to another model, tenant or store.
            ReadOnly: the store was opened so.
        """
        return open_writer(self, sequence, name_of(model), profile, tenant, start, protected_tokens, after, replace)

    # Sequences

    def videos(self, tenant: str | None = None, building: bool = False) -> list[Video]:
        """All videos, by tenant and name. `tenant`: only this one's; `building`: unfinished ones, too."""
        return [Video(self, fields) for fields in self._listed("video", tenant, building)]

    def sessions(self, tenant: str | None = None, building: bool = False) -> list[Session]:
        """All sessions, by tenant and name. `tenant`: only this one's; `building`: unfinished ones, too."""
        return [Session(self, fields) for fields in self._listed("session", tenant, building)]

    def video(self, name: str, tenant: str | None = None) -> Video:
        """The video of a name. Raises NotFound."""
        return Video(self, self._sequence_fields(f"video/{name.removeprefix('video/')}", tenant))

    def session(self, name: str, tenant: str | None = None) -> Session:
        """The session of a name. Raises NotFound."""
        return Session(self, self._sequence_fields(f"session/{name.removeprefix('session/')}", tenant))

    def _listed(self, kind: Literal["video", "session"], tenant: str | None, building: bool) -> list[dict[str, Any]]:
        with self._handle as store:
            fields: list[dict[str, Any]] = library().json(
                "sequences_json", store, kind.encode(), _optional(tenant, "tenant"), building
            )
        return fields

    def _sequence_fields(self, sequence: str, tenant: str | None) -> dict[str, Any]:
        with self._handle as store:
            fields: dict[str, Any] = library().json(
                "sequence_json", store, encoded(sequence, "name"), _optional(tenant, "tenant")
            )
        return fields

    # Administration

    def statistics(self) -> dict[str, Any]:
        """What is stored and how it was used, as `reelkv stats --json` prints it."""
        with self._handle as store:
            result: dict[str, Any] = library().json("statistics_json", store)
        return result

    def settings(self) -> Settings:
        """What bounds the store."""
        native = _abi.Settings.make()
        with self._handle as store:
            library().call("settings_get", store, ctypes.byref(native))
        return Settings(
            quota_bytes=native.quota_bytes or None,
            free_bytes_min=native.free_bytes_min or None,
            unused_seconds_max=native.unused_seconds_max or None,
            policy=(native.policy or b"").decode(),
        )

    def update_settings(
        self,
        quota_bytes: int | None = None,
        free_bytes_min: int | None = None,
        unused_seconds_max: int | None = None,
        policy: str | None = None,
    ) -> Settings:
        """Changes what is given, for every process, and leaves the rest. 0 lifts a bound.

        Raises:
            QuotaExceeded: a quota that cannot be met: what is pinned or in use takes more.
        """
        native = _abi.Settings.make()
        with self._handle as store:
            library().call("settings_get", store, ctypes.byref(native))
            if quota_bytes is not None:
                native.quota_bytes = unsigned(quota_bytes, "quota_bytes")
            if free_bytes_min is not None:
                native.free_bytes_min = unsigned(free_bytes_min, "free_bytes_min")
            if unused_seconds_max is not None:
                native.unused_seconds_max = unsigned(unused_seconds_max, "unused_seconds_max")
            native.policy = None if policy is None else encoded(policy, "policy")
            library().call("settings_set", store, ctypes.byref(native))
        return self.settings()

    def evict(self, bytes: int) -> int:
        """Evicts until the store takes at most so many bytes on disk. Returns the bytes of the page images that went."""
        evicted = ctypes.c_uint64()
        with self._handle as store:
            library().call("evict", store, unsigned(bytes, "bytes"), ctypes.byref(evicted))
        return evicted.value

    def compact(self) -> int:
        """Gives the space of dead pages back. Returns by how many bytes the folder is smaller."""
        freed = ctypes.c_uint64()
        with self._handle as store:
            library().call("compact", store, ctypes.byref(freed))
        return freed.value

    def verify(self, repair: bool = False, dry_run: bool = False, pages: Literal["decode", "quick", "skip"] = "decode") -> Verification:
        """Checks every record and every page. Damage is told, not raised.

        Args:
            repair: mend what is wrong: damaged pages are quarantined, records that cannot be right are dropped, and counts are computed again.
            dry_run: change nothing, and tell what a repair would do.
            pages: "quick" compares the pages' checksums and decodes nothing, "skip" reads no page.

        Raises:
            InUse: another repair or a compaction runs.
        """
        depths = {"decode": 0, "quick": _QUICK, "skip": _SKIP_PAGES}
        if pages not in depths:
            raise InvalidArgument(f"pages is {pages!r}, it must be one of {', '.join(depths)}")
        flags = depths[pages] | (_REPAIR if repair else 0) | (_DRY_RUN if dry_run else 0)
        with self._handle as store:
            found = library().json("verify_json", store, flags)
        return _verification(found)


    def scrub(self, max_bytes_per_second: int | None = 64 << 20) -> Scrub:
        """Reads every page at a limited rate, from where the last scrub stood to the end of the round. Damaged ones count as not stored from then on.

        Raises:
            InUse: another process scrubs.
        """
        rate = 0 if max_bytes_per_second is None else unsigned(max_bytes_per_second, "max_bytes_per_second")
        with self._handle as store:
            return _scrub(library().json("scrub_json", store, rate))

    def scrub_step(self, max_bytes: int = 16 << 20) -> Scrub:
        """A piece of a scrub of at most so many bytes, or one page, to be called in the background."""
        with self._handle as store:
            return _scrub(library().json("scrub_step_json", store, unsigned(max_bytes, "max_bytes")))


_SKIP_PAGES, _QUICK, _REPAIR, _DRY_RUN = 1, 2, 4, 8


def rebuild(path: Path, keys: Mapping[str, Key] | None = None) -> Verification:
    """Makes the index of a store that cannot be opened any more anew, from its volumes and the file `identity`.

    Every page is found by its tokens again; names, frames, turns and engine state are lost. No process may have the store open.

    Args:
        keys: of all encrypted tenants, by name.

    Raises:
        KeyRequired: an encrypted tenant's key is missing.
        Damaged: the file `identity` cannot be read either.
        InvalidArgument: the index can be read; use `Store.verify(repair=True)`.
    """
    given = (_abi.TenantKey * len(keys or {}))(
        *(_abi.TenantKey(encoded(tenant, "tenant"), (ctypes.c_uint8 * 32)(*_key(key))) for tenant, key in (keys or {}).items())
    )
    return _verification(library().json("rebuild_json", _path(path), given, len(given)))


def _key(key: Key) -> bytes:
    """The 32 bytes of a key. Errors tell nothing of it."""
    if not isinstance(key, bytes):
        with open(key, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                raise InvalidArgument(f"the key file {os.fspath(key)} is open to others than its owner: chmod 600 it first")
            key = file.read(1024)
        if len(key) != 32:
            try:
                key = bytes.fromhex(key.decode().strip())
            except ValueError:
                key = b""
    if len(key) != 32:
        raise InvalidArgument("a key is 32 bytes, or a file that holds them or 64 hexadecimal digits")
    return key


def _verification(found: dict[str, Any]) -> Verification:
    repair = found.get("repair") or {}
    return Verification(bool(found["sound"]), int(found["pages"]), _problems(found["problems"]), _problems(repair.get("changes", [])))


def _scrub(found: dict[str, Any]) -> Scrub:
    return Scrub(int(found["pages"]), int(found["bytes"]), int(found["damaged"]), bool(found["finished"]))


def _problems(found: list[dict[str, str]]) -> tuple[Problem, ...]:
    return tuple(Problem(problem["kind"], problem["subject"], problem["message"]) for problem in found)


def _path(path: Path) -> bytes:
    encoded_path = os.fsencode(path)
    if b"\0" in encoded_path:
        raise InvalidArgument("a path must not hold a NUL character")
    return encoded_path


def _optional(text: str | None, what: str) -> bytes | None:
    return None if text is None else encoded(text, what)


def _tenant(fields: dict[str, Any]) -> Tenant:
    return Tenant(
        name=fields["name"],
        is_encrypted=bool(fields["encrypted"]),
        is_unlocked=bool(fields["unlocked"]),
        key_generation=fields.get("key_generation"),
        has_earlier_keys=fields.get("earlier_keys"),
        live_pages=int(fields["live_pages"]),
        live_bytes=int(fields["live_bytes"]),
        # Python 3.10 does not know the letter
        created=datetime.fromisoformat(fields["created"].replace("Z", "+00:00")),
    )


def _stored_model(fields: dict[str, Any]) -> StoredModel:
    layers = fields["layers"]
    return StoredModel(
        name=fields["name"],
        fingerprint=fields["fingerprint"],
        dtype=fields["dtype"],
        layers=tuple(
            LayerShape(layer["kv_heads"], layer["key_dim"], layer["value_dim"], layer["sliding_window"] or None) for layer in layers
        ),
        rotated=tuple(bool(layer["rotated"]) for layer in layers),
    )
