"""Guards that shape the features before the last layer and take the energy: ReAct, ASH, SCALE, DICE.

Shapes are those after pooling, where the papers apply them.
"""

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from dracones.methods.guards.config import GuardConfig
from dracones.methods.guards.formula import Input
from dracones.methods.guards.guard import Guard
from dracones.methods.guards.logits import Energy
from dracones.methods.guards.outputs import ClassifierOutputs, LinearHead
from dracones.methods.info import MethodInfo
from dracones.methods.registry import register


def _kept(features: Tensor, share: float) -> int:
    """How many of the F activations survive when ``share`` of them is pruned."""
    if features.ndim != 2:
        raise ValueError(f"features must be [B, F], got shape {tuple(features.shape)}; pool feature maps first")
    if not 0 <= share < 1:
        raise ValueError(f"percentile must be in [0, 1) (0.9 prunes the smallest 90 %), got {share}")
    width = features.shape[1]
    # Python's round() and numpy's agree: half to even, as in the papers' code.
    return max(1, width - round(width * share))


def _largest(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    top = features.topk(count, dim=1)
    return top.values, top.indices


def _ratio(total: Tensor, kept: Tensor) -> Tensor:
    """Sum before over sum after; 1 where nothing was active, so that a dead image stays finite."""
    return torch.where(kept == 0, torch.ones_like(kept), total / torch.where(kept == 0, torch.ones_like(kept), kept))


class ShapedEnergy(Guard):
    """Shape the features, apply the classifier's last layer, take the energy. Keeps a copy of that layer."""

    reads: ClassVar[tuple[Input, ...]] = ("logits", "features", "head")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register_buffer("weight", torch.empty(0))
        self.register_buffer("bias", torch.empty(0))
        self.weight: Tensor
        self.bias: Tensor

    def learn(self, outputs: ClassifierOutputs, labels: Tensor | None, head: LinearHead | None) -> None:  # noqa: ARG002
        """Copy the last layer."""
        if head is None:
            raise ValueError(f"{self.info.name} needs the last layer")
        device = outputs.logits.device
        self.weight = head.weight.detach().to(device, torch.float32).clone()
        self.bias = head.bias.detach().to(device, torch.float32).clone()

    @abstractmethod
    def shaped(self, features: Tensor) -> Tensor:
        """Shaped features ``[B, F]``."""

    def formula(self, logits: Tensor, features: Tensor | None) -> Tensor:
        """Energy after shaping."""
        features = ClassifierOutputs(logits, features).needed_features(self.info.name).to(self.weight)
        return Energy.score(functional.linear(self.shaped(features), self.weight, self.bias))


@register
class React(ShapedEnergy):
    """ReAct: activations clipped at a percentile of the training activations (`React.clip`)."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="react",
        title="ReAct: Out-of-distribution Detection With Rectified Activations",
        authors=("Sun", "Guo", "Li"),
        year=2021,
        url="https://arxiv.org/abs/2111.12797",
        family="classifier",
        needs=("images", "classifier"),
        summary="energy after clipping large activations",
    )

    class Config(GuardConfig):
        """Options of ReAct."""

        percentile: float = Field(0.9, gt=0, le=1, description="of the training activations, where they are clipped")

    config: Config

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register_buffer("threshold", torch.empty(0))
        self.threshold: Tensor

    def learn(self, outputs: ClassifierOutputs, labels: Tensor | None, head: LinearHead | None) -> None:
        """The layer and the clipping threshold."""
        super().learn(outputs, labels, head)
        activations = outputs.needed_features(self.info.name).cpu().numpy()
        self.threshold = self.weight.new_tensor(float(np.quantile(activations, self.config.percentile)))

    @staticmethod
    def clip(features: Tensor, threshold: float | Tensor) -> Tensor:
        """Clip every activation at ``threshold``, a percentile of the training activations.

        Reference: Sun, Guo, Li, "ReAct: Out-of-distribution Detection with Rectified Activations", NeurIPS 2021, eq. 1.

        >>> React.clip(torch.tensor([[0.5, 2.0]]), 1.0)
        tensor([[0.5000, 1.0000]])
        """
        return features.clamp(max=threshold)

    def shaped(self, features: Tensor) -> Tensor:
        """Clipped."""
        return self.clip(features, self.threshold)


@register
class Ash(ShapedEnergy):
    """ASH: small activations pruned, the rest scaled (`Ash.s`), made equal (`Ash.b`) or left (`Ash.p`)."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="ash",
        title="Extremely Simple Activation Shaping for Out-of-Distribution Detection",
        authors=("Djurisic", "Bozanic", "Ashok", "Liu"),
        year=2023,
        url="https://arxiv.org/abs/2209.09858",
        family="classifier",
        needs=("images", "classifier"),
        summary="energy after pruning small activations and scaling the rest",
    )

    class Config(GuardConfig):
        """Options of ASH."""

        percentile: float = Field(0.9, ge=0, lt=1, description="share of an image's activations that is pruned")
        variant: Literal["s", "b", "p"] = Field(
            "s", description="s scales the survivors, b makes them equal, p leaves them"
        )

    config: Config

    @staticmethod
    def p(features: Tensor, percentile: float) -> Tensor:
        """Zero the smallest ``percentile`` of an image's activations, keep the others.

        Reference: Djurisic, Bozanic, Ashok, Liu, "Extremely Simple Activation Shaping", ICLR 2023, Algorithm 1.

        >>> Ash.p(torch.tensor([[1.0, 4.0, 2.0, 3.0]]), 0.5)
        tensor([[0., 4., 0., 3.]])
        """
        values, index = _largest(features, _kept(features, percentile))
        return torch.zeros_like(features).scatter(1, index, values)

    @staticmethod
    def b(features: Tensor, percentile: float) -> Tensor:
        """Prune, then set all survivors to one constant that keeps the sum of the activations (Algorithm 2).

        >>> Ash.b(torch.tensor([[1.0, 4.0, 2.0, 3.0]]), 0.5)
        tensor([[0., 5., 0., 5.]])
        """
        count = _kept(features, percentile)
        _, index = _largest(features, count)
        constant = (features.sum(dim=1, keepdim=True) / count).expand(-1, count)
        return torch.zeros_like(features).scatter(1, index, constant)

    @staticmethod
    def s(features: Tensor, percentile: float) -> Tensor:
        """Prune, then scale the survivors by ``exp(sum before / sum after)`` (Algorithm 3).

        >>> Ash.s(torch.tensor([[1.0, 1.0]]), 0.5)
        tensor([[7.3891, 0.0000]])
        """
        values, index = _largest(features, _kept(features, percentile))
        ratio = _ratio(features.sum(dim=1, keepdim=True), values.sum(dim=1, keepdim=True))
        return torch.zeros_like(features).scatter(1, index, values * ratio.exp())

    def shaped(self, features: Tensor) -> Tensor:
        """Pruned."""
        return {"s": self.s, "b": self.b, "p": self.p}[self.config.variant](features, self.config.percentile)


@register
class Scale(ShapedEnergy):
    """SCALE: all activations scaled by how concentrated they are (`Scale.scale`)."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="scale",
        title="Scaling for Training Time and Post-hoc Out-of-distribution Detection Enhancement",
        authors=("Xu", "Chen", "Franchi", "Yao"),
        year=2024,
        url="https://arxiv.org/abs/2310.00227",
        family="classifier",
        needs=("images", "classifier"),
        summary="energy after scaling activations by how concentrated they are",
    )

    class Config(GuardConfig):
        """Options of SCALE."""

        percentile: float = Field(0.85, ge=0, lt=1, description="share of the activations left out of the denominator")

    config: Config

    @staticmethod
    def scale(features: Tensor, percentile: float) -> Tensor:
        """Scale *all* activations by ``exp(sum of all / sum of the largest)``: ASH-S without the pruning.

        Reference: Xu, Chen, Franchi, Yao, "Scaling for Training Time and Post-hoc Out-of-distribution Detection
        Enhancement", ICLR 2024, eq. 4-6.

        >>> Scale.scale(torch.tensor([[1.0, 1.0]]), 0.5)
        tensor([[7.3891, 7.3891]])
        """
        values, _ = _largest(features, _kept(features, percentile))
        return features * _ratio(features.sum(dim=1, keepdim=True), values.sum(dim=1, keepdim=True)).exp()

    def shaped(self, features: Tensor) -> Tensor:
        """Scaled."""
        return self.scale(features, self.config.percentile)


@register
class Dice(ShapedEnergy):
    """DICE: the last layer's small contributions zeroed (`Dice.sparse`); features stay as they are."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="dice",
        title="DICE: Leveraging Sparsification for Out-of-Distribution Detection",
        authors=("Sun", "Li"),
        year=2022,
        url="https://arxiv.org/abs/2111.09805",
        family="classifier",
        needs=("images", "classifier"),
        summary="energy with the last layer's small contributions zeroed",
    )

    class Config(GuardConfig):
        """Options of DICE."""

        sparsity: float = Field(0.9, ge=0, lt=1, description="share of the last layer's weights that is zeroed")

    config: Config

    def learn(self, outputs: ClassifierOutputs, labels: Tensor | None, head: LinearHead | None) -> None:
        """The layer, made sparse by the mean feature."""
        super().learn(outputs, labels, head)
        mean = outputs.needed_features(self.info.name).double().mean(dim=0)
        self.weight = self.sparse(self.weight, mean.to(self.weight), self.config.sparsity)

    @staticmethod
    def sparse(weight: Tensor, mean_features: Tensor, sparsity: float) -> Tensor:
        """Zero the weights of the last layer with the smallest mean contribution ``mean(feature_j) * W_kj``.

        Args:
            weight: ``[K, F]`` of the last layer.
            mean_features: ``[F]``, mean over the training images.
            sparsity: share of all K*F weights that is zeroed.

        Reference: Sun & Li, "DICE: Leveraging Sparsification for Out-of-Distribution Detection", ECCV 2022, eq. 2-3.

        >>> Dice.sparse(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.ones(2), 0.5)
        tensor([[0., 0.],
                [3., 4.]])
        """
        if not 0 <= sparsity < 1:
            raise ValueError(f"sparsity must be in [0, 1), got {sparsity}")
        contribution = weight * mean_features
        # torch.quantile refuses more than 16 million entries, which an ImageNet-21k head exceeds.
        position = sparsity * (contribution.numel() - 1)
        ordered = contribution.flatten().sort().values
        below = ordered[int(position)]
        above = ordered[min(int(position) + 1, contribution.numel() - 1)]
        threshold = torch.lerp(below, above, position - int(position))
        return torch.where(contribution > threshold, weight, torch.zeros_like(weight))

    def shaped(self, features: Tensor) -> Tensor:
        """As they are."""
        return features
