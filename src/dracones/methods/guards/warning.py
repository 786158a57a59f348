"""Warnings that point at the caller's own line, however deep in this package they arise."""

import sys
import warnings


def warn_caller(message: str) -> None:
    """Warn with the first line outside this package as the place."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "dracones":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)
