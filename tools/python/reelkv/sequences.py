"""Videos and sessions: the named sequences of a store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ._library import encoded, library, unsigned
from .match import Match
from .writer import Frame

if TYPE_CHECKING:
    from .store import Store

_ALL_TOKENS = (1 << 64) - 1


@dataclass(frozen=True)
class Turn:
    """One turn of a session."""

    first_token: int
    appended: datetime


class StoredSequence:
    """What a store knows of a video or session, as it was when it was looked up; `refresh` looks again.

    Attributes:
        name: without its kind.
        sequence: "video/NAME" or "session/NAME".
        tenant: whose it is.
        model, profile: names: whose cache it is, and how its new pages are encoded.
        token_count: its tokens.
        provenance: where it came from.
        created, updated: when.
        is_building: still being written, or left so by a writer that ended before it finished.
        is_pinned: whether its pages are kept from being evicted.
        is_locked: its tenant is encrypted and its key was not given, so that frames, turns and provenance are not known.
    """

    kind = ""

    def __init__(self, store: Store, fields: dict[str, Any]):
        self._store = store
        self._read(fields)

    def _read(self, fields: dict[str, Any]) -> None:
        self.sequence: str = fields["sequence"]
        self.name = self.sequence.partition("/")[2]
        self.tenant: str = fields["tenant"]
        self.model: str = fields["model"]
        self.profile: str = fields["profile"]
        self.token_count: int = fields["tokens"]
        self.provenance: dict[str, str] = fields["provenance"]
        self.created = _time(fields["created_unix"])
        self.updated = _time(fields["updated_unix"])
        self.is_building: bool = fields["building"]
        self.is_pinned: bool = fields["pinned"]
        self.is_locked: bool = fields["locked"]

    def __len__(self) -> int:
        return self.token_count

    def __repr__(self) -> str:
        return f"<reelkv.{type(self).__name__} {self.name!r}: {self.token_count} tokens of {self.model}>"

    def refresh(self) -> None:
        """Looks it up again. Raises NotFound if it is gone."""
        self._read(self._store._sequence_fields(self.sequence, self.tenant))

    def prefix(self, counted: bool = True) -> Match:
        """What it consists of, to be restored or continued.

        Args:
            counted: whether that counts as a use of its pages, for the order of eviction.
        """
        return self._store.sequence_prefix(self.sequence, self.tenant, model=self.model, counted=counted)

    def fork(self, name: str, tokens: int | None = None) -> Session:
        """Makes a session that starts as its first `tokens` tokens (None: all of them). That copies nothing.

        Raises:
            AlreadyExists: a session of the name.
        """
        name = name.removeprefix("session/")
        with self._store._handle as store:
            library().call(
                "fork",
                store,
                encoded(self.sequence, "name"),
                encoded(self.tenant, "tenant"),
                encoded(name, "name"),
                _ALL_TOKENS if tokens is None else unsigned(tokens, "tokens"),
            )
        return self._store.session(name, tenant=self.tenant)

    def remove(self) -> None:
        """Removes the name, and with it what no other sequence shares."""
        with self._store._handle as store:
            library().call("remove", store, encoded(self.sequence, "name"), encoded(self.tenant, "tenant"))

    def pin(self) -> None:
        """Keeps its pages from being evicted."""
        self._set_pinned(True)

    def unpin(self) -> None:
        """Lets its pages be evicted when room is needed."""
        self._set_pinned(False)

    def _set_pinned(self, pinned: bool) -> None:
        with self._store._handle as store:
            library().call("set_pinned", store, encoded(self.sequence, "name"), encoded(self.tenant, "tenant"), pinned)
        self.is_pinned = pinned


class Video(StoredSequence):
    """A named prefix that was written once, to be shared. `frames`: its frame table, in order."""

    kind = "video"
    frames: tuple[Frame, ...]

    def _read(self, fields: dict[str, Any]) -> None:
        super()._read(fields)
        self.frames = tuple(Frame(int(first), int(count), float(seconds)) for first, count, seconds in fields["frames"])


class Session(StoredSequence):
    """A branch that grows turn by turn. `turns`: in order."""

    kind = "session"
    turns: tuple[Turn, ...]

    def _read(self, fields: dict[str, Any]) -> None:
        super()._read(fields)
        self.turns = tuple(Turn(int(first), _time(unix)) for first, unix in fields["turns"])

    def truncate(self, tokens: int) -> None:
        """Drops its tokens from `tokens` on."""
        with self._store._handle as store:
            library().call("truncate", store, encoded(self.name, "name"), encoded(self.tenant, "tenant"), unsigned(tokens, "tokens"))
        self.refresh()


def _time(unix: float) -> datetime:
    return datetime.fromtimestamp(unix, timezone.utc)
