"""Options as TOML keeps them."""

from collections.abc import Mapping
from typing import Any


def without_none(options: Mapping[str, Any]) -> dict[str, Any]:
    """Drop entries that are None, at every depth: TOML has no null, and an option left out keeps its default.

    >>> without_none({"size": None, "training": {"epochs": 3, "max_steps": None}})
    {'training': {'epochs': 3}}
    """
    return {
        key: without_none(value) if isinstance(value, Mapping) else value
        for key, value in options.items()
        if value is not None
    }
