"""Native objects: let go of once, not while they are in use, and never touched in a child process."""

from __future__ import annotations

import os
import threading
import weakref
from types import TracebackType
from typing import Any

from ._library import library
from .errors import Closed, Forked

_forks = 0


def _note_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_note_fork)


def _let_go(forks: int, function: str, pointer: int, keeps: tuple[Any, ...]) -> None:
    """Releases a native object, unless it is the parent process's. `keeps` lives until then."""
    if forks == _forks:
        library().release(function, pointer)


class Handle:
    """A pointer to a native object, for use in `with`: `with handle as pointer: ...`.

    Closing one that another thread is using takes effect when that thread is done. What is still open when nothing refers to it any
    more, or when the interpreter ends, is let go of then.
    """

    def __init__(self, noun: str, pointer: int, release: str, *keeps: Any):
        """`release`: the function that lets go of it. `keeps`: Python objects whose memory it uses."""
        self._noun = noun
        self._pointer = pointer
        self._forks = _forks
        self._users = 0
        self._is_closing = False
        self._lock = threading.Lock()
        self._finalizer = weakref.finalize(self, _let_go, _forks, release, pointer, keeps)

    def check_process(self) -> None:
        """Raises Forked in a child of the process that made this."""
        if self.is_of_parent:
            raise Forked(
                f"this {self._noun} was opened before fork(), in another process: locks and threads do not survive that. "
                "Open the store anew in the child process (with multiprocessing, use the 'spawn' start method or open it in the worker)"
            )

    @property
    def is_closed(self) -> bool:
        return self._is_closing

    @property
    def is_of_parent(self) -> bool:
        """Whether this process is a child of the one that made it."""
        return self._forks != _forks

    def __enter__(self) -> int:
        self.check_process()
        with self._lock:
            if self._is_closing:
                raise Closed(f"this {self._noun} is closed")
            self._users += 1
        return self._pointer

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._users -= 1
            is_last = self._is_closing and self._users == 0
        if is_last:
            self._finalizer()

    def close(self) -> None:
        """Lets go of it. Once is enough, more does no harm; in a child process it only forgets it."""
        if self.is_of_parent:
            self._is_closing = True
            self._finalizer.detach()
            return
        with self._lock:
            self._is_closing = True
            is_unused = self._users == 0
        if is_unused:
            self._finalizer()

    def take(self) -> int:
        """The pointer, for a function that lets go of it itself; closed from then on. Raises Closed, Forked."""
        self.check_process()
        with self._lock:
            if self._is_closing:
                raise Closed(f"this {self._noun} is closed")
            self._is_closing = True
            self._finalizer.detach()
        return self._pointer
