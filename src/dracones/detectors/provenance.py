"""Where a detector comes from: versions, seed, data fingerprint, how the training went."""

import platform
from datetime import UTC, datetime
from typing import Any

import torch

import dracones
from dracones.images import ImageCollection
from dracones.methods import Parts


def _readable(images: ImageCollection) -> int:
    """How many of the images were not skipped so far."""
    if not images.skipped:
        return len(images)
    return len(set(images.names) - {item.name for item in images.skipped})


def provenance(seed: int, fingerprint: str, parts: Parts, seconds: float, reports: list[Any]) -> dict[str, Any]:
    """A JSON-able record of one fit."""
    return {
        "dracones": dracones.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "fitted_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "seed": seed,
        "data_fingerprint": fingerprint,
        "images": {
            "train": _readable(parts.train),
            "validation": _readable(parts.validation),
            "calibration": _readable(parts.calibration),
            "skipped": len(parts.train.skipped),
        },
        "training": [report.model_dump(mode="json") for report in reports],
    }
