"""Says how far a precomputation is, where a person looks at it."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any


class Reporter:
    """Reports on standard error: a tqdm bar for each stage on a terminal, a line when a stage has taken long elsewhere.

    `is_quiet`: nothing at all.
    """

    _PLAIN_SECONDS = 10.0
    """How often a log that no one watches gets a line."""

    def __init__(self, is_quiet: bool = False):
        self._is_quiet = is_quiet

    def say(self, text: str) -> None:
        if not self._is_quiet:
            print(text, file=sys.stderr, flush=True)

    def stage(self, label: str, total: int | None, unit: str, done: int = 0) -> Stage:
        """Begins a stage; use it in `with`. `done`: what of `total` was done before."""
        return Stage(self, label, total, unit, done, None if self._is_quiet else _bar(label, total, unit, done))


class Stage:
    """One stage's progress."""

    def __init__(self, reporter: Reporter, label: str, total: int | None, unit: str, done: int, bar: Any):
        self._reporter, self._label, self._total, self._unit, self._bar = reporter, label, total, unit, bar
        self.done = done
        self._said = time.monotonic()

    def reach(self, done: int, total: int | None = None, note: str = "") -> None:
        """Says that so much is done, of how much if that was not known before, and perhaps something beside it."""
        self._total = total if total is not None else self._total
        if self._bar is not None:
            self._bar.total = self._total
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(done - self.done)
        elif time.monotonic() - self._said >= Reporter._PLAIN_SECONDS:
            self._said = time.monotonic()
            of = f" of {self._total:,}" if self._total is not None else ""
            self._reporter.say(f"{self._label}: {done:,}{of} {self._unit}{', ' + note if note else ''}")
        self.done = done

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def _bar(label: str, total: int | None, unit: str, done: int) -> Any:
    if not sys.stderr.isatty():
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=total, initial=done, unit=f" {unit}", desc=label, leave=False, file=sys.stderr)
