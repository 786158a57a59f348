"""Distance to the k-th nearest training feature, by exact search."""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from dracones.methods.guards.config import GuardConfig
from dracones.methods.guards.formula import Input
from dracones.methods.guards.guard import Guard
from dracones.methods.guards.outputs import ClassifierOutputs, LinearHead
from dracones.methods.info import MethodInfo
from dracones.methods.registry import register

# Ranks on either side of the k-th whose distances are measured again without rounding.
_SPARE = 8


@register
class Knn(Guard):
    """Euclidean distance to the k-th nearest training feature, features scaled to unit length.

    The order comes from one matrix product around the features' mean, whose rounding (about 1e-7 of their spread) could
    blur short distances; the ranks within 8 of the k-th are therefore measured again by difference. Only where more
    than 8 training features lie within that rounding of the k-th may one of these stand in for it.

    >>> guard = Knn(k=2, normalize=False)
    >>> guard = guard.fit_outputs(torch.zeros(3, 2), torch.tensor([[0.0], [1.0], [5.0]]))
    >>> guard.score_outputs(torch.zeros(1, 2), torch.tensor([[2.0]]))
    tensor([2.])
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        name="knn",
        title="Out-of-Distribution Detection with Deep Nearest Neighbors",
        authors=("Sun", "Ming", "Zhu", "Li"),
        year=2022,
        url="https://arxiv.org/abs/2204.06507",
        family="classifier",
        needs=("images", "classifier"),
        summary="distance to the k-th nearest training feature, exact search",
    )

    class Config(GuardConfig):
        """Options of KNN."""

        k: int = Field(50, ge=1, description="which neighbour; 50 on CIFAR-10, 1000 on ImageNet in the paper")
        normalize: bool = Field(True, description="scale features to length 1")
        share: float = Field(1.0, gt=0, le=1, description="share of the training features that is kept")

    config: Config
    reads: ClassVar[tuple[Input, ...]] = ("logits", "features")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name in ("bank", "origin", "half_norms"):
            self.register_buffer(name, torch.empty(0))
        self.bank: Tensor
        self.origin: Tensor
        self.half_norms: Tensor

    def _points(self, features: Tensor) -> Tensor:
        features = features.float()
        return functional.normalize(features, dim=1) if self.config.normalize else features

    def learn(self, outputs: ClassifierOutputs, labels: Tensor | None, head: LinearHead | None) -> None:  # noqa: ARG002
        """Keep the training features, moved to their mean."""
        points, options = self._points(outputs.needed_features(self.info.name)), self.config
        if options.share < 1:
            count = max(1, round(options.share * len(points)))
            order = torch.randperm(len(points), generator=torch.Generator().manual_seed(options.seed))
            points = points[order[:count].to(points.device)]
        if len(points) < options.k:
            raise ValueError(
                f"k={options.k} neighbours were asked of {len(points)} training features; lower k or add images"
            )
        self.origin = points.double().mean(dim=0).float()
        # Differences of nearby float32 numbers are exact, so no digit of a distance is lost.
        self.bank = (points - self.origin).contiguous()
        self.half_norms = 0.5 * self.bank.square().sum(dim=1)

    def formula(self, logits: Tensor, features: Tensor | None) -> Tensor:
        """Distance to the k-th neighbour."""
        points = self._points(ClassifierOutputs(logits, features).needed_features(self.info.name)).to(self.bank)
        points = points - self.origin
        # argmin |p - b|^2 = argmax p.b - |b|^2 / 2
        closeness = points @ self.bank.T - self.half_norms
        count, first = min(self.bank.shape[0], self.config.k + _SPARE), max(0, self.config.k - 1 - _SPARE)
        window = closeness.topk(count, dim=1).indices[:, first:]
        distances = torch.linalg.vector_norm(self.bank[window] - points[:, None], dim=2)
        nearest: Tensor = distances.topk(self.config.k - first, dim=1, largest=False).values
        return nearest[:, -1]
