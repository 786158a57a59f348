"""Every method by name."""

from typing import TypeVar

from dracones.methods.info import MethodInfo
from dracones.methods.method import Method
from dracones.registry import Registry

_ROOM = "dracones.methods"
_MODULES = {
    "guards.density": ("feature_density",),
    "guards.gaussian": ("mahalanobis", "relative_mahalanobis"),
    "guards.logits": ("energy", "entropy", "gen", "max_logit", "msp"),
    "guards.neighbours": ("knn",),
    "guards.odin": ("odin",),
    "guards.shaping": ("ash", "dice", "react", "scale"),
    "guards.subspace": ("residual", "vim"),
    "feature_flows.cflow": ("cflow",),
    "feature_flows.csflow": ("csflow",),
    "feature_flows.differnet": ("differnet",),
    "feature_flows.embedding_flow": ("embedding_flow",),
    "feature_flows.fastflow": ("fastflow",),
    "feature_flows.msflow": ("msflow",),
    "ensemble": ("ensemble",),
    "likelihood": ("glow", "pixelcnn", "realnvp", "vae"),
    "memories.padim": ("padim",),
    "memories.patchcore": ("patchcore",),
}

METHODS: Registry[type[Method]] = Registry(
    "method",
    {name: f"{_ROOM}.{module}" for module, names in _MODULES.items() for name in names},
    group="dracones.methods",
)

MethodClass = TypeVar("MethodClass", bound=type[Method])


def register(method: MethodClass) -> MethodClass:
    """Class decorator: make a method known under its ``info.name``.

    Raises:
        ValueError: if another class already holds the name.
    """
    METHODS.enter(method.info.name, method)
    return method


def method_names() -> tuple[str, ...]:
    """Names that `dracones.create` accepts, in alphabetical order, without importing any method."""
    return METHODS.names()


def method_class(name: str) -> type[Method]:
    """The class registered under ``name``.

    Raises:
        ValueError: unknown name; the message holds the nearest ones.
    """
    return METHODS[name]


def methods() -> tuple[MethodInfo, ...]:
    """The records of all methods that can be created."""
    return tuple(method_class(name).info for name in method_names())


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
