"""Finds libreelkv, loads it once, and turns its statuses into exceptions."""

from __future__ import annotations

import ctypes
import json
import operator
import os
import sys
import threading
from ctypes import c_char_p, c_void_p
from pathlib import Path
from typing import Any

from . import _abi
from .errors import KINDS, Error, InvalidArgument, LibraryUnavailable

_NAME = "libreelkv.dylib" if sys.platform == "darwin" else "libreelkv.so"
_HERE = Path(__file__).resolve().parent
_SOURCES = _HERE.parents[2]


def candidates() -> list[Path]:
    """Where the library is looked for, in this order: what `REELKV_LIBRARY` names, and nothing else if it is set; the one that a wheel
    brings along; what `tools/library` built of the sources that this file lies in."""
    if named := os.environ.get("REELKV_LIBRARY"):
        return [Path(named)]
    places = [_HERE / "_lib" / _NAME]
    if (_SOURCES / "Package.swift").is_file():
        places.append(_SOURCES / ".build-library" / "release" / _NAME)
    return places


class Library:
    """The loaded library. `call` runs a function that gives a status and raises what it says."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self._functions = ctypes.CDLL(str(path))
        except OSError as error:
            raise LibraryUnavailable(f"{path} cannot be loaded: {error}") from error
        self._check_version()
        try:
            _abi.declare(self._functions)
        except AttributeError as error:
            raise LibraryUnavailable(f"{path} lacks a function of its own interface version; build it anew: {error}") from error

    def _check_version(self) -> None:
        try:
            version = self._functions.reelkv_abi_version
        except AttributeError as error:
            raise LibraryUnavailable(f"{self.path} is no libreelkv: it has no reelkv_abi_version") from error
        version.argtypes, version.restype = [], ctypes.c_uint32
        found = version()
        if found < _abi.ABI_VERSION:
            raise LibraryUnavailable(
                f"{self.path} implements version {found} of the C interface, this package needs {_abi.ABI_VERSION} or later: "
                "build the library from the same sources, or install a wheel that brings it along"
            )

    @property
    def version(self) -> str:
        """The library's own version."""
        text: bytes = self._functions.reelkv_version()
        return text.decode()

    def call(self, name: str, *arguments: Any) -> None:
        """Runs `reelkv_NAME`. Raises the error that its status means, with the library's sentence."""
        status = getattr(self._functions, f"reelkv_{name}")(*arguments)
        if status != 0:
            raise self._error(status)

    def release(self, name: str, *arguments: Any) -> None:
        """Runs `reelkv_NAME`, which returns nothing."""
        getattr(self._functions, f"reelkv_{name}")(*arguments)

    def text(self, name: str, *arguments: Any) -> str:
        """Runs `reelkv_NAME`, whose last argument gives text that belongs to the caller."""
        address = c_void_p()
        self.call(name, *arguments, ctypes.byref(address))
        try:
            return ctypes.cast(address, c_char_p).value.decode() if address else ""  # type: ignore[union-attr]
        finally:
            self.release("free", address)

    def json(self, name: str, *arguments: Any) -> Any:
        """The same, for text that is JSON."""
        return json.loads(self.text(name, *arguments))

    def _error(self, status: int) -> Error:
        message: bytes = self._functions.reelkv_last_error()
        kind = KINDS.get(status, Error)
        if message:
            return kind(message.decode(errors="replace"))
        name: bytes = self._functions.reelkv_status_name(status)
        return kind(f"the library gave the status {status} ({name.decode()})")


_lock = threading.Lock()
_loaded: Library | None = None


def library() -> Library:
    """The library, loaded when it is first needed. Raises LibraryUnavailable."""
    global _loaded
    if _loaded is None:
        with _lock:
            if _loaded is None:
                _loaded = Library(_find())
    return _loaded


def _find() -> Path:
    places = candidates()
    for path in places:
        if path.is_file():
            return path
    if "REELKV_LIBRARY" in os.environ:
        raise LibraryUnavailable(f"REELKV_LIBRARY names {places[0]}, which is no file")
    looked = " and ".join(str(path) for path in places)
    raise LibraryUnavailable(
        f"{_NAME} was not found (looked for {looked}): install a wheel, which brings it along, or build it with tools/library in "
        "ReelKV's sources and name it in REELKV_LIBRARY"
    )


def encoded(text: str, what: str) -> bytes:
    """Text for the library: UTF-8 without NUL."""
    if not isinstance(text, str):
        raise InvalidArgument(f"{what} must be text, not {type(text).__name__}")
    if "\0" in text:
        raise InvalidArgument(f"{what} must not hold a NUL character")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{what} cannot be written as UTF-8: {error}") from error


def unsigned(value: int, what: str, bits: int = 64) -> int:
    """A count for the library. ctypes would cut one that does not fit without a word."""
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidArgument(f"{what} must be a whole number, not {value!r}") from None
    if not 0 <= number < 1 << bits:
        raise InvalidArgument(f"{what} cannot be {number}")
    return number
