"""`create("glow")` is the whole interface to making a detector."""

from typing import Any

from dracones.detectors.detector import Detector
from dracones.methods import method_class


def create(name: str, **options: Any) -> Detector:
    """Make an unfitted detector.

    Args:
        name: a method; see `dracones.methods.method_names`.
        options: the fields of the method's ``Config`` (see ``dracones methods NAME``); for a guard also the
            ``classifier``, a module.

    Returns:
        A detector with the paper's defaults where no option says otherwise.

    Raises:
        ValueError: unknown method, unknown option (the nearest are named) or a value out of range.

    Example:
        >>> import dracones
        >>> dracones.create("glow", rule="typicality").config.rule
        'typicality'
    """
    return Detector(method_class(name)(**options))
