"""What libraries say aloud while they read a damaged file."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Pillow logs and warns of damaged tags; that a file is damaged comes out as its reason, with the file's name.
_LOGGERS = ("PIL", "tifffile")
for _name in _LOGGERS:
    logging.getLogger(_name).addHandler(logging.NullHandler())
    logging.getLogger(_name).propagate = False


@contextmanager
def quiet() -> Iterator[None]:
    """No warning of a decoder reaches the terminal, where nobody could tell which file it is about."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL(\\.|$)")
        yield
