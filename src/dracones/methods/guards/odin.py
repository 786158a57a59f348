"""ODIN: temperature and a small step of the input, both chosen on held-out data, and the model says on which."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from dracones.images import ImageCollection
from dracones.methods.guards.config import GuardConfig
from dracones.methods.guards.guard import GATHERING_BATCH, Guard
from dracones.methods.guards.identity import GuardExtras
from dracones.methods.guards.logits import Msp
from dracones.methods.guards.perturbation import Precision, perturbed_logits
from dracones.methods.guards.probe import ClassifierProbe
from dracones.methods.guards.tuning import (
    EPSILONS,
    TEMPERATURES,
    Protocol,
    Tuning,
    choose_by_validation,
    choose_in_distribution,
)
from dracones.methods.info import MethodInfo
from dracones.methods.learning import FitContext
from dracones.methods.method import FileExtras
from dracones.methods.registry import register
from dracones.methods.scores import Scores


class TuningRecord(BaseModel):
    """`Tuning` as a file holds it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: Protocol
    temperature: float = Field(gt=0)
    epsilon: float = Field(ge=0)
    normal_images: int = Field(ge=0)
    anomalous_images: int = Field(ge=0)
    validation_set: str | None


class OdinExtras(GuardExtras):
    """The classifier, and what T and epsilon were chosen on."""

    tuning: TuningRecord | None


@register
class Odin(Guard):
    """One minus the maximum softmax of the temperature-scaled logits of an input moved towards its predicted class.

    ``x~ = x - eps * sign(grad_x CE(f(x) / T, y)) / std`` with y the class predicted at T = 1, then
    ``1 - max softmax(f(x~) / T)``; the paper thresholds the maximum itself.

    How T and eps are chosen is part of the result, and `tuning` says it:

    - ``fit`` chooses eps from normal images alone (T = 1000): the one that raises the mean maximum softmax most, the
      criterion of Generalized ODIN. No anomalous image is needed. The images are those of ``validation_share``,
      or the training images if that is 0;
    - ``tune(normal, anomalous, name=...)`` chooses both by FPR at 95 % TPR on a named validation set. The paper does
      this anew with part of each set it then reports;
    - ``epsilon=...`` fixes it.

    References: Liang, Li, Srikant, ICLR 2018; Hsu, Shen, Jin, Kira, "Generalized ODIN: Detecting Out-of-distribution
    Image without Learning from Out-of-distribution Data", CVPR 2020, section 3.3.

    Raises:
        ValueError: a classifier that no gradient goes through.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        name="odin",
        title="Enhancing The Reliability of Out-of-distribution Image Detection in Neural Networks",
        authors=("Liang", "Li", "Srikant"),
        year=2018,
        url="https://arxiv.org/abs/1706.02690",
        family="classifier",
        needs=("images", "classifier", "gradients"),
        summary="softmax at high temperature after a small step of the input towards the predicted class",
    )

    class Config(GuardConfig):
        """Options of ODIN."""

        temperature: float = Field(1000.0, gt=0, description="T; the paper's tuning chose 1000 everywhere")
        epsilon: float | None = Field(
            None, ge=0, description="step in units of [0, 1] pixels; chosen on normal images if none"
        )
        gradient_precision: Precision = Field(
            "own",
            description="own: as the classifier computes; bfloat16: the gradient under autocast, faster, another score",
        )
        tuning_images: int = Field(1000, ge=1, description="normal images that epsilon is chosen on, at most")

    Extras: ClassVar[type[FileExtras]] = OdinExtras

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register_buffer("temperature", torch.tensor(self._options.temperature, dtype=torch.float64))
        self.register_buffer("epsilon", torch.tensor(self._options.epsilon or 0.0, dtype=torch.float64))
        self.temperature: Tensor
        self.epsilon: Tensor
        self.tuning: Tuning | None = None

    @property
    def _options(self) -> "Odin.Config":
        if not isinstance(self.config, Odin.Config):
            raise TypeError(f"odin takes Odin.Config, got {type(self.config).__name__}")
        return self.config

    def fit_statistics(self, context: FitContext) -> None:
        """Choose epsilon on normal images, unless it is given."""
        super().fit_statistics(context)
        if self._options.epsilon is not None:
            self.adopt_tuning(Tuning("fixed", self._options.temperature, self._options.epsilon))
            return
        images = context.held_out if len(context.held_out) else context.train
        if len(images) > self._options.tuning_images:
            images = images.subset(np.linspace(0, len(images) - 1, self._options.tuning_images).astype(int))
        scores = self.grid(images, (self._options.temperature,), EPSILONS)
        self.adopt_tuning(choose_in_distribution(scores))

    def tune(self, normal: ImageCollection, anomalous: ImageCollection, *, name: str) -> Self:
        """Choose T and epsilon by FPR at 95 % TPR on a validation set, and remember its name.

        Args:
            normal: treated normal images, not those that are reported on.
            anomalous: treated anomalous images, not those that are reported on.
            name: what the set is, such as ``"Tiny ImageNet resized, first 1000"``; it is saved.

        Raises:
            ValueError: an empty name.
        """
        if not name.strip():
            raise ValueError("name the validation set: a result that was tuned on anomalous images must say on which")
        inside = self.grid(normal, TEMPERATURES, EPSILONS)
        outside = self.grid(anomalous, TEMPERATURES, EPSILONS)
        return self.adopt_tuning(choose_by_validation(inside, outside, name=name))

    def grid(
        self, images: ImageCollection, temperatures: tuple[float, ...], epsilons: tuple[float, ...]
    ) -> Mapping[tuple[float, float], np.ndarray]:
        """Scores ``[N]`` of a collection for every (T, epsilon); one gradient for each T."""
        found: dict[tuple[float, float], list[Tensor]] = {(t, e): [] for t in temperatures for e in epsilons}
        for batch in images.batches(GATHERING_BATCH):
            for t in temperatures:
                moved = perturbed_logits(self.probe, batch.images, t, epsilons, self._options.gradient_precision)
                for e, logits in zip(epsilons, moved, strict=True):
                    found[t, e].append(Msp.score(logits, temperature=t).cpu())
        return {key: torch.cat(parts).numpy() for key, parts in found.items()}

    def forward(self, images: Tensor, host: Tensor | None = None) -> Scores:  # noqa: ARG002
        """Scores after the step: one backward and two passes."""
        temperature = float(self.temperature)
        (moved,) = perturbed_logits(
            self.probe, images, temperature, (float(self.epsilon),), self._options.gradient_precision
        )
        return Scores(Msp.score(moved, temperature=temperature).to(self.device))

    def logits_and_scores(self, images: Tensor, probe: ClassifierProbe) -> tuple[Tensor, Tensor]:
        """The classifier's own logits, and the score after the step."""
        temperature, epsilon = float(self.temperature), float(self.epsilon)
        precision = self._options.gradient_precision
        first, moved = perturbed_logits(probe, images, temperature, (0.0, epsilon), precision)
        return first, Msp.score(moved, temperature=temperature).to(self.device)

    def adopt_tuning(self, tuning: Tuning) -> Self:
        """Take settings over, with the record of how they were chosen; a calibration of the former is void."""
        self.temperature.fill_(tuning.temperature)
        self.epsilon.fill_(tuning.epsilon)
        self.tuning = tuning
        return self

    def header_extras(self) -> dict[str, Any]:
        """The classifier's identity, and what T and epsilon were chosen on."""
        return {**super().header_extras(), "tuning": None if self.tuning is None else self.tuning.to_dict()}

    def restore(self, extras: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
        """As every guard, and the tuning's record.

        Raises:
            ValueError: the record speaks of another temperature or step than the state holds.
        """
        super().restore(extras, state)
        self.tuning = None if extras["tuning"] is None else Tuning(**extras["tuning"])
        held = float(self.temperature), float(self.epsilon)
        if self.tuning is not None and held != (self.tuning.temperature, self.tuning.epsilon):
            raise ValueError(f"odin computes with T, epsilon = {held}, and its record says {self.tuning}")
