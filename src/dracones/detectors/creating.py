"""`create("glow")` and `load("model.safetensors")` are the whole interface to making a detector."""

from pathlib import Path
from typing import Any

import torch

from dracones.detectors import files
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
    method = method_class(name)(**options)
    method.refuse_incomplete()
    return Detector(method)


def load(path: str | Path, *, device: str | torch.device = "cpu", verify: bool = True, **runtime: Any) -> Detector:
    """Read a detector that `Detector.save` wrote; nothing is unpickled, and every altered file is refused.

    What the file asks for is compared with what it holds before memory is given to it: loading takes the memory of
    the detector itself and of one tensor.

    Args:
        path: the safetensors file.
        device: where to put it; scores agree between devices to 1e-5 in float32.
        verify: compare the file with its digests; without, loading is faster by one reading of the file.
        runtime: objects that a file cannot hold, such as the ``classifier`` that a guard wraps.

    Raises:
        FileNotFoundError: no such file.
        ValueError: foreign, truncated, altered, of another format, or not fitting this version; the file is named.
    """
    method, record = files.read(path, device=device, verify=verify, runtime=runtime)
    detector = Detector(method)
    detector.know(record)
    return detector
