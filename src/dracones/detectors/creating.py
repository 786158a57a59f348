"""`create("glow")` and `load("model.safetensors")` are the whole interface to making a detector."""

from pathlib import Path
from typing import Any

import torch

from dracones.detectors import files
from dracones.detectors.detector import Detector
from dracones.features import default_backbone
from dracones.images import ImageCollection
from dracones.methods import MethodConfig, method_class

_SAMPLE = 64
_LARGE = 64
"""Longer side, in pixels, from above which images are looked at through a backbone, whether one is at hand or not."""


def create(name: str = "ensemble", **options: Any) -> Detector:
    """Make an unfitted detector.

    Args:
        name: a method; see `dracones.methods.method_names`. By default the one for who has no opinion.
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


def default_method(images: ImageCollection, **options: Any) -> str:
    """The method where none is named: ``ensemble`` for images above 64 px or with a backbone at hand, else ``glow``.

    At hand are a backbone that a package brought and one that the options name. Above 64 px a density of pixels is no
    way out: where no backbone is to be had, the ensemble's error says how to get one.

    Args:
        images: what it is to learn from.
        options: of `create`; a ``size`` decides in place of the images' own and of what is at hand, a ``classifier``
            asks for a guard.

    Raises:
        ValueError: a classifier, whose guard is to be chosen.

    Example:
        >>> from dracones.images import open_images
        >>> default_method(open_images("builtin:gravel?count=3&size=96"))
        'ensemble'
    """
    if "classifier" in options:
        raise ValueError(
            "which guard is to watch the classifier? Name one, as in `dracones fit energy DATA`; `dracones methods` "
            "lists them (family classifier)"
        )
    if options.get("size") is not None:
        size = MethodConfig.from_options(size=options["size"]).size
        return "ensemble" if size is not None and max(size) > _LARGE else "glow"
    at_hand = {"backbone", "weights"} & options.keys() or default_backbone()[1] == "packaged"
    large = any(max(height, width) > _LARGE for _, height, width in images.sample_shapes(_SAMPLE).values())
    return "ensemble" if at_hand or large else "glow"


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
