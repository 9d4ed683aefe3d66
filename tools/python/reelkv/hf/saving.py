"""Storing a cache under a name: what is there already, what is new, and what must not be stored again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidArgument, NotFound, PageUnavailable
from ..match import Match
from ..model import Model
from ..sequences import Session
from ..store import Store
from ..tokens import Tokens
from ..writer import Writer
from . import dynamic

_CHUNK_TOKENS = 4096
"""How many tokens are on the CPU at a time when a cache lies elsewhere."""


_ORIGIN = "_reelkv_origin"


@dataclass(frozen=True)
class Origin:
    """What a cache was restored from. It stays with the cache: a copy of it refers to the same match, a pickled one to none."""

    match: Match | None
    count: int
    is_exact: bool

    @staticmethod
    def note(past: Any, origin: Origin) -> None:
        setattr(past, _ORIGIN, origin)

    @staticmethod
    def of(past: Any) -> Origin:
        """Of a cache that was computed here: nothing."""
        origin: Origin = getattr(past, _ORIGIN, Origin(None, 0, True))
        return origin

    def __deepcopy__(self, memo: dict[int, Any]) -> Origin:
        return self

    def __reduce__(self) -> tuple[type[Origin], tuple[None, int, bool]]:
        return Origin, (None, self.count, self.is_exact)


class Saving:
    """One cache and its tokens, on their way into a store.

    What was restored from lossy pages is never appended again: it would be taken for exact. A sequence of it starts with those pages
    themselves.
    """

    def __init__(self, store: Store, spec: Model, profile: str, tenant: str | None, tokens: Tokens, past: Any):
        self._store, self._spec, self._profile, self._tenant = store, spec, profile, tenant
        self._tokens, self._past = tokens, past
        self._origin = Origin.of(past)
        self._lossy_count = 0 if self._origin.is_exact else self._origin.count

    def into_session(self, sequence: str, start: Match | None, finish: Mapping[str, Any]) -> int:
        session = self._session(sequence)
        if session is None:
            return self._append(sequence, self._start(start), finish)
        common = session.prefix(counted=False).tokens().common_prefix(self._tokens)
        if common == len(self._tokens) and common <= session.token_count:
            return 0
        if common < self._lossy_count:
            return self._restart(sequence, session, finish)
        if common < session.token_count:
            session.truncate(common)
        return self._append(sequence, None, finish, after=common)

    def into_video(self, sequence: str, start: Match | None, finish: Mapping[str, Any], replace: bool) -> int:
        if start is not None:
            raise InvalidArgument("a video is written from its first token, and starts with nothing else; only a session can")
        if self._lossy_count > 0:
            raise InvalidArgument(
                f"the cache's first {self._lossy_count} tokens were restored from lossy pages, and a video is written from its first token: "
                "save a session, or compute the video anew"
            )
        return self._append(sequence, None, finish, replace=replace)

    def _session(self, sequence: str) -> Session | None:
        try:
            return self._store.session(sequence, self._tenant)
        except NotFound:
            return None

    def _restart(self, sequence: str, session: Session, finish: Mapping[str, Any]) -> int:
        """Has a session begin anew, from pages that others wrote with the same first tokens and more."""
        start = self._start(None)
        session.remove()
        pinned = finish["pinned"] if finish["pinned"] is not None else session.is_pinned
        provenance = {**session.provenance, **(finish["provenance"] or {})}
        return self._append(sequence, start, {**finish, "pinned": pinned, "provenance": provenance})

    def _start(self, given: Match | None) -> Match | None:
        """What a new session starts with: what is given, or what the cache was restored from."""
        if given is not None:
            if given.token_count < self._lossy_count:
                raise InvalidArgument(
                    f"the cache's first {self._lossy_count} tokens were restored from lossy pages, but it is to start with {given.token_count}: "
                    "start with what was restored"
                )
            return given
        match, count = self._origin.match, self._origin.count
        if count == 0:
            return None
        if match is None or count < match.token_count:
            match = self._store.longest_prefix(self._tokens[:count], self._spec, self._tenant, counted=False)
            if match.token_count < self._lossy_count:
                raise PageUnavailable("what the cache was restored from is gone, and it cannot be stored again: it was lossy. Compute anew")
        return match

    def _append(
        self, sequence: str, start: Match | None, finish: Mapping[str, Any], after: int | None = None, replace: bool = False
    ) -> int:
        if start is not None and start.token_count == 0:
            start = None
        after = after if after is not None else start.token_count if start is not None else 0
        with self._store.writer(
            sequence, self._spec, self._profile, self._tenant, start=start, after=after, replace=replace
        ) as writer:
            self._append_from(writer, writer.start_count)
            writer.finish(**finish)
        return len(self._tokens) - after

    def _append_from(self, writer: Writer, first: int) -> None:
        if first > len(self._tokens):
            raise InvalidArgument(f"the sequence would start with {first} tokens, the cache has only {len(self._tokens)}")
        for begin in range(first, len(self._tokens), _CHUNK_TOKENS):
            end = min(begin + _CHUNK_TOKENS, len(self._tokens))
            writer.append(self._tokens[begin:end], dynamic.cache_layers(self._past, begin, end))
