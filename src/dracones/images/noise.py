"""What libraries say aloud while they read a damaged file."""

import ctypes
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import PIL

# Pillow logs and warns of damaged tags; that a file is damaged comes out as its reason, with the file's name.
_LOGGERS = ("PIL", "tifffile")
for _name in _LOGGERS:
    logging.getLogger(_name).addHandler(logging.NullHandler())
    logging.getLogger(_name).propagate = False

_LIBTIFF = ("TIFFSetErrorHandler", "TIFFSetWarningHandler")
_lock = threading.Lock()
_inside = 0
_undo: list[Any] = []


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing that a decoder says reaches the terminal, where nobody could tell which file it is about.

    Filters of warnings, and the handlers of libtiff, which writes to standard error itself, belong to the process: the
    first thread that comes in sets them, the last that leaves sets them back.
    """
    global _inside
    with _lock:
        _inside += 1
        if _inside == 1:
            _hush()
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                while _undo:
                    _undo.pop()()


def _hush() -> None:
    warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
    filters, ours = warnings.filters, warnings.filters[0]

    def forget() -> None:
        with suppress(ValueError):
            filters.remove(ours)  # type: ignore[attr-defined]

    _undo.append(forget)
    for setter in _libtiff_setters():
        before = setter(None)
        _undo.append(lambda setter=setter, before=before: setter(before))


@cache
def _libtiff_setters() -> tuple[Any, ...]:
    """Where Pillow brings libtiff as a library of its own; nothing where it is built in."""
    root = Path(PIL.__file__).parent
    found = [*root.parent.glob("pillow.libs/libtiff*"), *root.glob(".dylibs/libtiff*")]
    try:
        library = ctypes.CDLL(str(found[0]))
        setters = tuple(getattr(library, name) for name in _LIBTIFF)
    except (IndexError, OSError, AttributeError):
        return ()
    for setter in setters:
        setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
    return setters
