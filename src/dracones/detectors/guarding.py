"""Verbs of the methods that guard a deployed classifier."""

from typing import Any, Self

from torch import nn

from dracones.detectors.known import Known
from dracones.images import open_images


class Guarding(Known):
    """What a detector that guards a classifier can do beyond scoring; others refuse by name. A part of `Detector`."""

    def wrap(self, model: nn.Module | None = None) -> nn.Module:
        """A guarded classifier as one module that returns logits and scores in one pass, for serving.

        Args:
            model: the classifier to serve, with the weights the guard was fitted on; the guard's own if not given.

        Raises:
            TypeError: this method guards no classifier.
            ValueError: not fitted, or a model with other weights.
        """
        from dracones.methods.guards import Guard, GuardedClassifier

        if not isinstance(self.method, Guard):
            raise TypeError(f"{self.info.name} guards no classifier; wrap() is for methods of the family 'classifier'")
        self.fitted()
        return GuardedClassifier(self.method, self.threshold, model)

    def tune(self, normal: Any, anomalous: Any, *, name: str) -> Self:
        """Choose ODIN's temperature and step on a validation set, and remember its name.

        The calibration is dropped, as it belongs to the former scores: call `calibrate` again.

        Args:
            normal: normal images, not those that are reported on.
            anomalous: anomalous images, not those that are reported on.
            name: what the set is, such as ``"Tiny ImageNet resized, first 1000"``; it is saved.

        Raises:
            TypeError: this method has nothing to tune.
            ValueError: not fitted, or an empty name.
        """
        from dracones.methods.guards import Odin

        if not isinstance(self.method, Odin):
            raise TypeError(f"{self.info.name} has nothing to tune on anomalous images; odin has")
        record = self.fitted()
        self.method.tune(self.adopt(open_images(normal)), self.adopt(open_images(anomalous)), name=name)
        self.know(record.uncalibrated())
        return self
