"""What an export traces: the pipeline, its answers by name, and nothing of its own."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dracones.detectors import Detector, Pipeline
from dracones.images import Preprocess, as_float, levels_of
from dracones.methods import Method
from dracones.methods.feature_flows.differnet import DifferNet
from dracones.methods.guards import Odin
from dracones.methods.likelihood import Likelihood
from dracones.rules import codec_statistics

_BY_GRADIENTS = ("gradient_norm", "intrinsic_dimension", "likelihood_regret")


class Input(NamedTuple):
    """Images that a graph takes.

    Attributes:
        channels: how many.
        size: height and width; ``None``: any.
        gray_too: whether a gray image may be fed as three equal channels.
    """

    channels: int
    size: tuple[int, int] | None
    gray_too: bool


class Deployed(nn.Module):
    """A pipeline whose answer is a tuple of what it knows, in the order of `names`.

    Args:
        pipeline: in eval mode.
        with_map: whether heat maps are among the answers.
    """

    def __init__(self, pipeline: Pipeline, *, with_map: bool) -> None:
        super().__init__()
        self.pipeline = pipeline
        judge = pipeline.judge
        known = {"p_value": len(judge.scores) > 0, "is_anomaly": len(judge.threshold) > 0, "map": with_map}
        self.names = ("score", *(name for name, given in known.items() if given))

    def forward(self, images: Tensor, host: Tensor | None = None) -> tuple[Tensor, ...]:
        """Answers for images ``[B, C, H, W]`` uint8."""
        answer = self.pipeline(images, host)
        return tuple(getattr(answer, name) for name in self.names)


class Treatment(nn.Module):
    """The treated image in its 256 levels: what codecs are shown."""

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self.preprocess = preprocess

    def forward(self, images: Tensor) -> Tensor:
        """``[B, C, h, w]`` uint8 of images ``[B, C, H, W]`` uint8."""
        treated = self.preprocess.treat(as_float(images), levels_of(images))
        return (treated * 255).round().to(torch.uint8)


def host_names(method: Method) -> tuple[str, ...]:
    """Statistics that no graph holds and the runner computes."""
    return codec_statistics(method.rule.requires) if isinstance(method, Likelihood) else ()


def input_of(detector: Detector, image_size: tuple[int, int] | None = None) -> Input:
    """What images the graph of a detector takes; of one size alone where that is asked.

    Raises:
        ValueError: the detector takes images of another size.
    """
    record = detector.fitted()
    preprocess, shape = record.preprocess, record.image_shape
    converts = preprocess.channels in (1, 3)  # gray is fed as three equal channels, whose gray it is
    channels = 3 if converts else (preprocess.channels or preprocess.native_channels or shape[0])
    free = preprocess.size is not None
    size = None if free else (preprocess.native_size or (shape[1], shape[2]))
    if image_size is not None and size not in (None, image_size):
        raise ValueError(f"the model resizes nothing and takes images of {size[0]}x{size[1]}, not {image_size}")
    return Input(channels, image_size or size, converts)


def refusal(detector: Detector) -> str | None:
    """Why a detector cannot be exported, in words; ``None``: it can be tried."""
    method = detector.method
    if detector.groups is not None:
        return "each group has its own threshold, and a graph does not know an image's group; calibrate without groups"
    if detector.fitted().interest is not None:
        return "a graph knows no region of interest; export a detector that was fitted on images cut to the region"
    if detector.tiling is not None:
        return "it scores images in tiles, which a graph for whole images does not; export the detector of one tile"
    if isinstance(method, Odin):
        return "odin's score needs a gradient of the classifier, which no exported graph holds"
    if isinstance(method, DifferNet) and method.gives_maps:
        return "differnet's heat map needs gradients; fit it with map_rotations=0 to export its scores"
    if isinstance(method, Likelihood):
        found = [name for name in _BY_GRADIENTS if name in method.rule.requires]
        if found:
            return f"the rule {method.rule.name!r} reads {', '.join(found)}, which needs gradients or a Jacobian"
    return None
