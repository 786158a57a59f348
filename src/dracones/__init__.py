"""dracones: learns what images belong, and says of every other image that it does not, and where.

Importing this package loads no torch: each public name is imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dracones.detectors import Detector as Detector
    from dracones.detectors import create as create
    from dracones.detectors import load as load
    from dracones.methods import methods as methods

__version__ = "0.2.0"

_ROOM_OF_NAME = {
    "Detector": "dracones.detectors",
    "create": "dracones.detectors",
    "load": "dracones.detectors",
    "methods": "dracones.methods",
}
_ROOMS = (
    "flows",
    "densities",
    "features",
    "metrics",
    "files",
    "images",
    "rules",
    "methods",
    "detectors",
    "calibration",
    "monitoring",
    "training",
    "anatomy",
    "report",
)

__all__ = ["Detector", "__version__", "create", "load", "methods"]


def __getattr__(name: str) -> Any:
    if name in _ROOM_OF_NAME:
        return getattr(import_module(_ROOM_OF_NAME[name]), name)
    if name in _ROOMS:
        return import_module(f"dracones.{name}")
    raise AttributeError(
        f"module 'dracones' has no attribute {name!r}; public names are {__all__} and the rooms {_ROOMS}"
    )


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])
