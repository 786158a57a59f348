"""A flow on the classifier's penultimate features: their log-density, which tells where that of pixels does not."""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from dracones.densities import TabularFlow, create_tabular
from dracones.methods.guards.config import GuardConfig
from dracones.methods.guards.formula import Input
from dracones.methods.guards.guard import Guard
from dracones.methods.guards.outputs import ClassifierOutputs, LinearHead
from dracones.methods.info import MethodInfo
from dracones.methods.registry import register
from dracones.training import TrainingConfig, train

_SMALLEST_BATCH = 8


@register
class FeatureDensity(Guard):
    """Minus the log-density of the features, scaled to unit length, under a small RealNVP trained for one epoch.

    In nats of the features as they are scaled and then standardised by the training features' mean and deviation.
    Both of the paper's findings are the defaults: features of unit length, and one epoch, since a flow trained for
    longer learns what makes any feature likely. Its backbones are larger and its flow is not described to the last
    layer; this one is 8 affine couplings of perceptrons with 256 hidden units.

    >>> z = torch.randn(64, 6, generator=torch.Generator().manual_seed(0)) + torch.tensor([4.0, 0, 0, 0, 0, 0])
    >>> guard = FeatureDensity(couplings=2, hidden=8).fit_outputs(torch.zeros(64, 2), z)
    >>> near, far = guard.score_outputs(torch.zeros(2, 2), torch.tensor([[4.0, 0, 0, 0, 0, 0], [-4.0, 0, 0, 0, 0, 0]]))
    >>> bool(near < far)
    True
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        name="feature_density",
        title="Feature Density Estimation for Out-of-Distribution Detection via Normalizing Flows",
        authors=("Cook", "Lavoie", "Waslander"),
        year=2024,
        url="https://arxiv.org/abs/2402.06537",
        family="classifier",
        needs=("images", "classifier"),
        summary="log-density of the features, of unit length, under a flow trained for one epoch",
    )

    class Config(GuardConfig):
        """Options of the feature density."""

        normalize: bool = Field(True, description="scale features to length 1")
        couplings: int = Field(8, ge=1, description="affine couplings, whose halves alternate")
        hidden: int = Field(256, ge=1, description="hidden units of each coupling's perceptron")
        epochs: int = Field(1, ge=1, description="passes over the training features; one in the paper")
        batch_size: int = Field(64, ge=1, description="features a step")
        learning_rate: float = Field(1e-3, gt=0, description="of Adam")
        width: int | None = Field(None, ge=2, description="how many features there are; found while fitting")

    config: Config
    reads: ClassVar[tuple[Input, ...]] = ("logits", "features")
    flow: TabularFlow

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Empty until the flow is trained: what says that a guard is not fitted.
        self.register_buffer("trained_on", torch.empty(0))
        self.trained_on: Tensor

    def _points(self, features: Tensor) -> Tensor:
        features = features.float()
        return functional.normalize(features, dim=1) if self.config.normalize else features

    def build(self, image_shape: tuple[int, int, int]) -> None:  # noqa: ARG002
        """The flow, where the number of features is known: when a file is read."""
        if self.config.width is not None:
            self.flow = self._made(self.config.width)

    def _made(self, width: int) -> TabularFlow:
        options = self.config
        return create_tabular(
            "realnvp", features=width, couplings=options.couplings, hidden=options.hidden, seed=options.seed
        )

    def learn(self, outputs: ClassifierOutputs, labels: Tensor | None, head: LinearHead | None) -> None:  # noqa: ARG002
        """Train the flow on the training features."""
        points, options = self._points(outputs.needed_features(self.info.name)).cpu(), self.config
        if len(points) < _SMALLEST_BATCH:
            raise ValueError(
                f"{self.info.name}: {len(points)} training features are too few for a density; give at least "
                f"{_SMALLEST_BATCH}"
            )
        width = points.shape[1]
        self.config = options.model_copy(update={"width": width})
        self.flow = self._made(width)
        self.flow.standardise(points)
        config = TrainingConfig(
            epochs=options.epochs,
            batch_size=min(options.batch_size, len(points)),
            learning_rate=options.learning_rate,
            clip_norm=10.0,
            seed=options.seed,
            device="cpu",
        )
        with torch.enable_grad():
            train(self.flow, points, config)
        self.trained_on = torch.tensor([float(len(points))])

    def formula(self, logits: Tensor, features: Tensor | None) -> Tensor:
        """−log p of the features, nats."""
        points = self._points(ClassifierOutputs(logits, features).needed_features(self.info.name))
        return -self.flow.log_prob(points.to(self.flow.mean))
