"""Errors that name the place they come from."""

from __future__ import annotations

from typing import Any


class at_layer:  # noqa: N801  reads as a statement: with at_layer(3, layer): ...
    """Puts a layer's place in front of the message of a ValueError or TypeError from inside it."""

    def __init__(self, index: int, layer: Any) -> None:
        self.place = f"layer {index} ({type(layer).__name__}): "

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: object) -> None:
        # Exactly these two: a subclass may not take a message alone.
        if error is not None and kind in (ValueError, TypeError):
            raise kind(f"{self.place}{error}") from error


class at_level(at_layer):  # noqa: N801  reads as a statement
    """Puts the level in front of the message of an error from inside it."""

    def __init__(self, index: int) -> None:
        self.place = f"level {index}, "
