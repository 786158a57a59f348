"""What is deployed: an image's treatment, a method, a verdict."""

from typing import NamedTuple

from torch import Tensor, nn

from dracones.calibration import Conformal
from dracones.detectors.judge import Judge
from dracones.images import Preprocess, as_float, levels_of
from dracones.methods import Method, Scores


class Answer(NamedTuple):
    """What a pipeline says of a batch.

    Attributes:
        score: ``[B]``, larger = more anomalous.
        p_value: ``[B]``, or ``None`` before calibration.
        is_anomaly: ``[B]``, or ``None`` where no threshold is set.
        map: ``[B, H, W]`` at the images' own size, or ``None``.
    """

    score: Tensor
    p_value: Tensor | None
    is_anomaly: Tensor | None
    map: Tensor | None


class Pipeline(nn.Module):
    """Treatment, method, verdict, and the map at the image's size: everything between a decoded image and its answer.

    Scoring, export and service run this and add no arithmetic of their own. It checks nothing: the detector around
    it, or the runtime, has looked at the images.

    Args:
        method: fitted.
        preprocess: how images are treated; images of the method's shape need none.
        judge: from calibration; says nothing before.
    """

    def __init__(self, method: Method, preprocess: Preprocess | None = None, judge: Judge | None = None) -> None:
        super().__init__()
        self.method = method
        self.preprocess = preprocess or Preprocess()
        self.judge = judge or Judge(Conformal(), None)

    def forward(self, images: Tensor, host: Tensor | None = None) -> Answer:
        """The answer for decoded images ``[B, C, H, W]`` of one size: uint8, uint16, or float in [0, 1]."""
        scores = self.method(self.preprocess.treat(as_float(images), levels_of(images)), host)
        return self.answer(scores, size=(images.shape[2], images.shape[3]))

    def answer(self, scores: Scores, size: tuple[int, int] | None, groups: Tensor | None = None) -> Answer:
        """Scores of treated images with their verdict; maps are laid over images of ``size``, left out if ``None``.

        Where each group has its own calibration, ``groups`` ``[B]`` says which is each image's; without, there is no
        verdict.
        """
        image = scores.image.to(self.judge.scores)  # float32, on the judge's device
        p_value, is_anomaly = self.judge(image, groups)
        heat = None if scores.map is None or size is None else self.preprocess.restore(scores.map.float(), size)
        return Answer(image, p_value, is_anomaly, heat)
