"""Any value as JSON can hold it: full precision, no NaN."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dracones.metrics import Estimate


def plain(value: Any) -> Any:
    """Numbers, text, lists and mappings; what is not finite becomes `None`. Of a dataclass all fields but those
    with the metadata ``{"json": False}``.

    Example:
        >>> plain({"a": np.float32(0.5), "b": np.array([1, 2]), "c": float("nan")})
        {'a': 0.5, 'b': [1, 2], 'c': None}
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Estimate):
        return {name: plain(number) for name, number in value.to_dict().items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field for field in dataclasses.fields(value) if field.metadata.get("json", True)]
        return {field.name: plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(mode="json"))
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    if isinstance(value, Path):
        return str(value)
    return str(value)
