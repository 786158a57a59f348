"""Energy of the logits that shaped features give: ReAct, ASH, SCALE, DICE."""

from abc import abstractmethod
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dracones.methods.guards import shaping
from dracones.methods.guards.logit_scores import energy
from dracones.methods.guards.outputs import ClassifierOutputs, LinearHead
from dracones.methods.guards.post_hoc import Input, PostHocScore


class ShapedEnergy(PostHocScore):
    """Shape the features, apply the classifier's last layer, take the energy. Keeps a copy of that layer."""

    reads: ClassVar[tuple[Input, ...]] = ("logits", "features", "head")

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(0))
        self.register_buffer("bias", torch.empty(0))
        self.weight: Tensor
        self.bias: Tensor

    def fit_outputs(self, outputs: ClassifierOutputs, labels: Tensor | None, head: LinearHead | None) -> None:
        """Copy the last layer."""
        del labels
        if head is None:
            raise ValueError(f"{type(self).__name__} needs the last layer")
        device = outputs.logits.device
        self.weight = head.weight.detach().to(device, torch.float32).clone()
        self.bias = head.bias.detach().to(device, torch.float32).clone()

    @abstractmethod
    def shape(self, features: Tensor) -> Tensor:
        """Shaped features ``[B, F]``."""

    def score_outputs(self, outputs: ClassifierOutputs) -> Tensor:
        """Energy after shaping."""
        shaped = self.shape(outputs.needed_features(type(self).__name__).to(self.weight))
        return energy(functional.linear(shaped, self.weight, self.bias))


class RectifiedEnergy(ShapedEnergy):
    """ReAct: activations clipped at a percentile of the training activations (`shaping.react`).

    Args:
        percentile: in (0, 1]; 0.9 in the paper.
    """

    def __init__(self, *, percentile: float = 0.9) -> None:
        super().__init__()
        if not 0 < percentile <= 1:
            raise ValueError(f"percentile must be in (0, 1], got {percentile}")
        self.percentile = percentile
        self.register_buffer("threshold", torch.zeros(()))
        self.threshold: Tensor

    def fit_outputs(self, outputs: ClassifierOutputs, labels: Tensor | None, head: LinearHead | None) -> None:
        """The layer and the clipping threshold."""
        super().fit_outputs(outputs, labels, head)
        activations = outputs.needed_features("ReAct").cpu().numpy()
        self.threshold = self.weight.new_tensor(float(np.quantile(activations, self.percentile)))

    def shape(self, features: Tensor) -> Tensor:
        """Clipped."""
        return shaping.react(features, self.threshold)


class PrunedEnergy(ShapedEnergy):
    """ASH: small activations pruned, the rest treated as the variant says (`shaping.ash_s`, `ash_b`, `ash_p`).

    Args:
        percentile: share pruned, in [0, 1).
        variant: ``s`` scales the survivors, ``b`` makes them equal, ``p`` leaves them.
    """

    def __init__(self, *, percentile: float = 0.9, variant: Literal["s", "b", "p"] = "s") -> None:
        super().__init__()
        variants = {"s": shaping.ash_s, "b": shaping.ash_b, "p": shaping.ash_p}
        if variant not in variants:
            raise ValueError(f"variant must be one of {sorted(variants)}, got {variant!r}")
        self.percentile, self.variant = percentile, variant
        self._prune = variants[variant]

    def shape(self, features: Tensor) -> Tensor:
        """Pruned."""
        return self._prune(features, self.percentile)


class ScaledEnergy(ShapedEnergy):
    """SCALE: all activations scaled by how concentrated they are (`shaping.scale`).

    Args:
        percentile: share left out of the denominator, in [0, 1); 0.85 in the paper.
    """

    def __init__(self, *, percentile: float = 0.85) -> None:
        super().__init__()
        self.percentile = percentile

    def shape(self, features: Tensor) -> Tensor:
        """Scaled."""
        return shaping.scale(features, self.percentile)


class SparseEnergy(ShapedEnergy):
    """DICE: the last layer's small contributions zeroed (`shaping.dice_weight`); features stay as they are.

    Args:
        sparsity: share of the weights that is zeroed; 0.9 in the paper.
    """

    def __init__(self, *, sparsity: float = 0.9) -> None:
        super().__init__()
        self.sparsity = sparsity

    def fit_outputs(self, outputs: ClassifierOutputs, labels: Tensor | None, head: LinearHead | None) -> None:
        """The layer, made sparse by the mean feature."""
        super().fit_outputs(outputs, labels, head)
        mean = outputs.needed_features("DICE").double().mean(dim=0)
        self.weight = shaping.dice_weight(self.weight, mean.to(self.weight), self.sparsity)

    def shape(self, features: Tensor) -> Tensor:
        """As they are."""
        return features
