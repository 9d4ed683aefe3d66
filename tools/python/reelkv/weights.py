"""Fingerprints of weight files: what keeps one model's cache from ever being taken for another's."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from ._progress import Progress
from .errors import InvalidArgument

SUFFIXES = (".safetensors", ".bin", ".gguf")
"""Weight files of a folder: those of the first kind that is there."""
_CHUNK_BYTES = 1 << 22
_SETTLED_SECONDS = 2.0
"""A file that was written less than this before it is hashed could be written again without its time changing."""


def weights_fingerprint(
    weights: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    variant: str = "",
    cached: bool = True,
    progress: bool | None = None,
) -> str:
    """64 hexadecimal digits that identify the content of weight files.

    One file has its SHA-256, as `sha256sum FILE` prints it; several have that of `sha256sum NAMES | sha256sum` in their folder, names in
    byte order. So the fingerprint is the one that `reelkv model add --fingerprint` is given.

    Args:
        weights: a file, several files, or a folder: its `*.safetensors`, or else its `*.bin`, or else its `*.gguf`.
        variant: what else changes the cache: how the weights are quantized when they are loaded, an adapter on top of them. Any text.
        cached: whether the digest of each file is remembered, in `~/.cache/reelkv/weights.json` (or `XDG_CACHE_HOME`), by path, size and
            time of change. Hashing takes a second or two per gigabyte.
        progress: None for a bar if tqdm is installed and standard error is a terminal, False for none, True for one in any case.

    Raises:
        InvalidArgument: no weight files there.
        OSError: a file that cannot be read.
    """
    files = _files(weights)
    memory = _Memory() if cached else None
    digests = {}
    with Progress(sum(file.stat().st_size for file in files), "B", "hashing weights", progress) as bar:
        for file in files:
            digests[file.name] = _digest(file, memory, bar)
    if memory is not None:
        memory.save()
    if len(files) == 1:
        digest = digests[files[0].name]
    else:
        lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests, key=os.fsencode))
        digest = hashlib.sha256(lines.encode()).hexdigest()
    return mixed(digest, variant)


def mixed(fingerprint: str, variant: str) -> str:
    """A fingerprint of the weights and of what else changes the cache; the weights' own where that is nothing."""
    if not variant:
        return fingerprint
    return hashlib.sha256(f"reelkv variant 1\n{fingerprint}\n{variant}".encode()).hexdigest()


def _files(weights: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    if isinstance(weights, (str, os.PathLike)):
        path = Path(weights)
        if path.is_dir():
            for suffix in SUFFIXES:
                if found := sorted(file for file in path.glob(f"*{suffix}") if file.is_file()):
                    return found
            raise InvalidArgument(f"{path} holds no weights: no {', '.join('*' + suffix for suffix in SUFFIXES)}; name the files themselves")
        files = [path]
    else:
        files = [Path(file) for file in weights]
    if not files:
        raise InvalidArgument("no weight files were given")
    for file in files:
        if not file.is_file():
            raise InvalidArgument(f"{file} is no file: give a weight file, several, a folder of them, or 64 hexadecimal digits")
    if len({file.name for file in files}) != len(files):
        raise InvalidArgument("two of the weight files have the same name: their digest goes by names")
    return files


def _digest(file: Path, memory: _Memory | None, bar: Progress) -> str:
    before = file.stat()
    known = memory.get(file, before) if memory is not None else None
    if known is not None:
        bar.advance(before.st_size)
        return known
    digest = hashlib.sha256()
    with open(file, "rb") as source:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            bar.advance(len(chunk))
    after = file.stat()
    is_settled = time.time() - after.st_mtime > _SETTLED_SECONDS
    if memory is not None and is_settled and _Memory.stamp(before) == _Memory.stamp(after):
        memory.put(file, after, digest.hexdigest())
    return digest.hexdigest()


class _Memory:
    """Digests of files, remembered between processes. Losing it costs time and nothing else."""

    def __init__(self) -> None:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        self._path = Path(base) / "reelkv" / "weights.json"
        self._new: dict[str, list[object]] = {}
        self._entries = self._read()

    @staticmethod
    def stamp(status: os.stat_result) -> list[object]:
        return [status.st_size, status.st_mtime_ns, status.st_ino]

    def _read(self) -> dict[str, list[object]]:
        try:
            entries = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}

    def get(self, file: Path, status: os.stat_result) -> str | None:
        entry = self._entries.get(os.path.realpath(file))
        if not isinstance(entry, list) or len(entry) != 4 or entry[:3] != self.stamp(status) or not isinstance(entry[3], str):
            return None
        return entry[3]

    def put(self, file: Path, status: os.stat_result, digest: str) -> None:
        self._new[os.path.realpath(file)] = [*self.stamp(status), digest]

    def save(self) -> None:
        if not self._new:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # what other processes have put meanwhile stays
            entries = self._read() | self._new
            with tempfile.NamedTemporaryFile("w", dir=self._path.parent, delete=False) as file:
                json.dump(entries, file)
            os.replace(file.name, self._path)
        except OSError:
            pass  # a home that cannot be written
