"""Shaping of penultimate features before the last layer: pure functions ``[B, F] -> [B, F]`` (DICE: on the weights).

Each is followed by the classifier's own last layer and a logit score, the energy in all four papers. Shapes are those
after pooling, where the papers apply them.
"""

import torch
from torch import Tensor


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


def react(features: Tensor, threshold: float | Tensor) -> Tensor:
    """Clip every activation at ``threshold``, a percentile of the training activations.

    Reference: Sun, Guo, Li, "ReAct: Out-of-distribution Detection with Rectified Activations", NeurIPS 2021, eq. 1.

    >>> react(torch.tensor([[0.5, 2.0]]), 1.0)
    tensor([[0.5000, 1.0000]])
    """
    return features.clamp(max=threshold)


def ash_p(features: Tensor, percentile: float) -> Tensor:
    """Zero the smallest ``percentile`` of an image's activations, keep the others.

    Reference: Djurisic, Bozanic, Ashok, Liu, "Extremely Simple Activation Shaping", ICLR 2023, Algorithm 1.

    >>> ash_p(torch.tensor([[1.0, 4.0, 2.0, 3.0]]), 0.5)
    tensor([[0., 4., 0., 3.]])
    """
    values, index = _largest(features, _kept(features, percentile))
    return torch.zeros_like(features).scatter(1, index, values)


def ash_b(features: Tensor, percentile: float) -> Tensor:
    """Prune, then set all survivors to one constant that keeps the sum of the activations (Algorithm 2).

    >>> ash_b(torch.tensor([[1.0, 4.0, 2.0, 3.0]]), 0.5)
    tensor([[0., 5., 0., 5.]])
    """
    count = _kept(features, percentile)
    _, index = _largest(features, count)
    constant = (features.sum(dim=1, keepdim=True) / count).expand(-1, count)
    return torch.zeros_like(features).scatter(1, index, constant)


def ash_s(features: Tensor, percentile: float) -> Tensor:
    """Prune, then scale the survivors by ``exp(sum before / sum after)`` (Algorithm 3).

    >>> ash_s(torch.tensor([[1.0, 1.0]]), 0.5)
    tensor([[7.3891, 0.0000]])
    """
    values, index = _largest(features, _kept(features, percentile))
    ratio = _ratio(features.sum(dim=1, keepdim=True), values.sum(dim=1, keepdim=True))
    return torch.zeros_like(features).scatter(1, index, values * ratio.exp())


def scale(features: Tensor, percentile: float) -> Tensor:
    """Scale *all* activations by ``exp(sum of all / sum of the largest)``: ASH-S without the pruning.

    Reference: Xu, Chen, Franchi, Yao, "Scaling for Training Time and Post-hoc Out-of-distribution Detection
    Enhancement", ICLR 2024, eq. 4-6.

    >>> scale(torch.tensor([[1.0, 1.0]]), 0.5)
    tensor([[7.3891, 7.3891]])
    """
    values, _ = _largest(features, _kept(features, percentile))
    return features * _ratio(features.sum(dim=1, keepdim=True), values.sum(dim=1, keepdim=True)).exp()


def dice_weight(weight: Tensor, mean_features: Tensor, sparsity: float) -> Tensor:
    """Zero the weights of the last layer with the smallest mean contribution ``mean(feature_j) * W_kj``.

    Args:
        weight: ``[K, F]`` of the last layer.
        mean_features: ``[F]``, mean over the training images.
        sparsity: share of all K*F weights that is zeroed.

    Reference: Sun & Li, "DICE: Leveraging Sparsification for Out-of-Distribution Detection", ECCV 2022, eq. 2-3.

    >>> dice_weight(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.ones(2), 0.5)
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
