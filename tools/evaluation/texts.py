"""Texts: those that every Debian has, and any file."""

import argparse
import hashlib
import inspect
from dataclasses import dataclass
from pathlib import Path

from .model import EvaluatedModel, Prefix
from .passages import Passage, SourceMissing

GPL3 = Path("/usr/share/common-licenses/GPL-3")


@dataclass(frozen=True)
class Text:
    """The first tokens of a text, and those after them."""

    name: str
    content: str
    prefix_tokens: int = 1024
    following_tokens: int = 256

    def read(self, model: EvaluatedModel) -> Passage:
        ids = model.beginning + model.tokenize(self.content)
        wanted = self.prefix_tokens + self.following_tokens
        if len(ids) < wanted:
            raise ValueError(f"the text {self.name} has {len(ids)} tokens, {wanted} are wanted: lower --prefix or --following")
        about = {"sha256": hashlib.sha256(self.content.encode()).hexdigest(), "prefix_tokens": self.prefix_tokens}
        cached = model.prefill(Prefix(ids[: self.prefix_tokens]))
        return Passage(self.name, "text", cached, ids[self.prefix_tokens : wanted], about)


def _gpl3() -> str:
    if not GPL3.is_file():
        raise SourceMissing(f"{GPL3} is not there, as it is on Debian and Ubuntu; name files with --texts instead")
    return GPL3.read_text()


def _manual() -> str:
    from pydoc_data import topics

    return topics.topics["compound"]


NAMED = {
    "gpl-3": _gpl3,
    # The chapter on compound statements of Python's reference manual: technical prose.
    "python-manual": _manual,
    # A module of the standard library: source code.
    "python-source": lambda: inspect.getsource(argparse),
}


def text(name: str, prefix_tokens: int, following_tokens: int) -> Text:
    """The text of a name in `NAMED`, or in a file."""
    if name in NAMED:
        return Text(name, NAMED[name](), prefix_tokens, following_tokens)
    path = Path(name)
    if not path.is_file():
        raise SourceMissing(f"no text is named {name!r}, and there is no such file; the names are {', '.join(NAMED)}")
    return Text(path.name, path.read_text(errors="replace"), prefix_tokens, following_tokens)
