"""Progress of what takes long, where a person looks at it."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


class Progress:
    """A tqdm bar, where tqdm is installed and standard error is a terminal; nothing elsewhere.

    It appears after a second, so that what is quick stays quiet. `wanted`: False for nothing, True for a bar even if no terminal is there.
    """

    def __init__(self, total: int, unit: str, label: str, wanted: bool | None = None):
        self._bar: Any = None
        if wanted is False or (wanted is None and not sys.stderr.isatty()):
            return
        try:
            from tqdm import tqdm
        except ImportError:
            return
        scales = unit == "B"
        self._bar = tqdm(total=total, unit=unit, desc=label, unit_scale=scales, unit_divisor=1024 if scales else 1000, delay=1, leave=False)

    @property
    def is_shown(self) -> bool:
        return self._bar is not None

    def advance(self, by: int) -> None:
        if self._bar is not None:
            self._bar.update(by)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
