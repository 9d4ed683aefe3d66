"""Token sequences to evaluate on: a prefix that is cached, and the tokens that follow it."""

from dataclasses import dataclass
from typing import Protocol

from .model import Cached, EvaluatedModel


@dataclass(frozen=True)
class Passage:
    name: str
    kind: str
    """"text" or "clip": figures are averaged over passages of a kind."""
    cached: Cached
    following: list[int]
    about: dict[str, object]
    """Where it comes from, and how it was cut: what it takes to make it again."""


class Source(Protocol):
    name: str

    def read(self, model: EvaluatedModel) -> Passage:
        """Raises `ValueError` when the source is too short."""


class SourceMissing(ValueError):
    """A text or clip that is not on this machine. The message says how to get it, or what to choose instead."""
