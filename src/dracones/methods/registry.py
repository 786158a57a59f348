"""Every method by name: `create("glow")` is the whole interface to making one."""

from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from dracones.detectors.detector import Detector
    from dracones.methods.info import MethodInfo

_REGISTERED: dict[str, "type[Detector]"] = {}

# Method name -> module of this room that registers it, so that one method imports only what it needs.
_MODULE_OF_METHOD: dict[str, str] = {
    "ash": "guards.shaping_methods",
    "cflow": "feature_flows.cflow",
    "csflow": "feature_flows.csflow",
    "dice": "guards.shaping_methods",
    "differnet": "feature_flows.differnet",
    "embedding_flow": "feature_flows.embedding_flow",
    "energy": "guards.logit_methods",
    "entropy": "guards.logit_methods",
    "fastflow": "feature_flows.fastflow",
    "gen": "guards.logit_methods",
    "glow": "likelihood",
    "knn": "guards.feature_methods",
    "mahalanobis": "guards.feature_methods",
    "max_logit": "guards.logit_methods",
    "msp": "guards.logit_methods",
    "msflow": "feature_flows.msflow",
    "odin": "guards.odin",
    "padim": "memories.padim",
    "patchcore": "memories.patchcore",
    "pixelcnn": "likelihood",
    "react": "guards.shaping_methods",
    "realnvp": "likelihood",
    "relative_mahalanobis": "guards.feature_methods",
    "residual": "guards.feature_methods",
    "scale": "guards.shaping_methods",
    "vae": "likelihood",
    "vim": "guards.feature_methods",
}

DetectorClass = TypeVar("DetectorClass", bound="type[Detector]")


def register(detector_class: DetectorClass) -> DetectorClass:
    """Class decorator: make a detector known under its ``info.name``.

    Raises:
        ValueError: if another class already holds the name.
    """
    name = detector_class.info.name
    known = _REGISTERED.get(name)
    if known is not None and known.__qualname__ != detector_class.__qualname__:
        raise ValueError(f"method name {name!r} is taken by {known.__qualname__}; choose another for {detector_class}")
    _REGISTERED[name] = detector_class
    return detector_class


def method_names() -> tuple[str, ...]:
    """Names that `create` accepts, in alphabetical order, without importing any method."""
    return tuple(sorted(set(_MODULE_OF_METHOD) | set(_REGISTERED)))


def detector_class(name: str) -> "type[Detector]":
    """The class registered under ``name``.

    Raises:
        ValueError: unknown name; the message holds the nearest ones.
    """
    if name in _MODULE_OF_METHOD and name not in _REGISTERED:
        import_module(f"dracones.methods.{_MODULE_OF_METHOD[name]}")
    if name not in _REGISTERED:
        near = get_close_matches(name, method_names(), n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(method_names())}"
        raise ValueError(f"unknown method {name!r}; {hint}")
    return _REGISTERED[name]


def create(name: str, **options: Any) -> "Detector":
    """Make an unfitted detector.

    Args:
        name: one of `method_names`.
        options: the fields of the method's ``Config`` (see ``dracones methods NAME``).

    Returns:
        A detector with the paper's defaults where no option says otherwise.

    Raises:
        ValueError: unknown method, unknown option (the nearest are named) or a value out of range.

    Example:
        >>> import dracones
        >>> dracones.create("glow", rule="typicality").config.rule
        'typicality'
    """
    return detector_class(name)(**options)


def methods() -> "tuple[MethodInfo, ...]":
    """The records of all methods that can be created."""
    return tuple(detector_class(name).info for name in method_names())


def methods_table() -> str:
    """The records of all methods as a Markdown table, which `docs/methods.md` holds."""
    lines = [
        "| method | family | idea | needs | gives | paper |",
        "|---|---|---|---|---|---|",
    ]
    for info in methods():
        cells = (
            f"`{info.name}`",
            info.family,
            info.summary,
            ", ".join(info.needs),
            ", ".join(info.gives),
            info.citation,
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
