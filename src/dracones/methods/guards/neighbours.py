"""Distance to the k-th nearest training feature, by exact search."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from dracones.methods.guards.outputs import ClassifierOutputs, LinearHead
from dracones.methods.guards.post_hoc import Input, PostHocScore

# Similarities, or differences to candidates, held at once: 64 MiB in float32.
_CHUNK = 1 << 24
# Candidates beyond k whose distances are taken again without rounding.
_SPARE = 8
# Bound on the relative error of a product of up to some thousand float32 terms.
_ROUNDING = 4e-6


class NearestNeighbours(PostHocScore):
    """Euclidean distance to the k-th nearest training feature, features scaled to unit length.

    Exact: candidates come from one matrix product, whose rounding (1e-7 of a squared distance of 2) would blur short
    distances; the k + 8 best are measured again by difference, and all where rounding could have hidden a nearer one.

    Args:
        k: which neighbour; 50 on CIFAR-10, 1000 on ImageNet in the paper.
        normalize: scale features to length 1 (the paper finds this decisive).
        share: share of the training features that is kept, chosen at random (the paper's alpha).
        seed: of that choice.

    Reference: Sun, Ming, Zhu, Li, "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022.

    >>> bank = ClassifierOutputs(torch.zeros(3, 2), torch.tensor([[0.0], [1.0], [5.0]]))
    >>> score = NearestNeighbours(k=2, normalize=False).fit(bank)
    >>> score.score(ClassifierOutputs(torch.zeros(1, 2), torch.tensor([[2.0]])))
    tensor([2.])
    """

    reads: ClassVar[tuple[Input, ...]] = ("features",)

    def __init__(self, *, k: int = 50, normalize: bool = True, share: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        if not 0 < share <= 1:
            raise ValueError(f"share must be in (0, 1], got {share}")
        self.k, self.normalize, self.share, self.seed = k, normalize, share, seed
        self.register_buffer("bank", torch.empty(0))
        self.bank: Tensor

    def _points(self, features: Tensor) -> Tensor:
        features = features.float()
        return functional.normalize(features, dim=1) if self.normalize else features

    def fit_outputs(self, outputs: ClassifierOutputs, labels: Tensor | None, head: LinearHead | None) -> None:
        """Keep the training features."""
        del labels, head
        points = self._points(outputs.needed_features("NearestNeighbours"))
        if self.share < 1:
            count = max(1, round(self.share * len(points)))
            order = torch.randperm(len(points), generator=torch.Generator().manual_seed(self.seed))
            points = points[order[:count].to(points.device)]
        if len(points) < self.k:
            raise ValueError(
                f"k={self.k} neighbours were asked of {len(points)} training features; lower k or add images"
            )
        self.bank = points.contiguous()

    def score_outputs(self, outputs: ClassifierOutputs) -> Tensor:
        """Distance to the k-th neighbour."""
        points = self._points(outputs.needed_features("NearestNeighbours")).to(self.bank)
        half_norms = 0.5 * self.bank.square().sum(dim=1)
        measured = min(len(self.bank), self.k + _SPARE) * self.bank.shape[1]
        rows = max(1, _CHUNK // max(len(self.bank), measured))
        return torch.cat([self._kth(chunk, half_norms) for chunk in points.split(rows)] or [points.new_empty(0)])

    def _kth(self, points: Tensor, half_norms: Tensor) -> Tensor:
        # argmin |p - b|^2 = argmax p.b - |b|^2 / 2
        closeness = torch.addmm(-half_norms, points, self.bank.T)
        count = min(len(self.bank), self.k + _SPARE)
        best = closeness.topk(count, dim=1, sorted=False)
        distances = torch.linalg.vector_norm(self.bank[best.indices] - points[:, None], dim=2)
        kth: Tensor = distances.kthvalue(self.k, dim=1).values
        if count < len(self.bank):
            self._measure_doubtful(kth, points, best.values.amin(dim=1), half_norms.max())
        return kth

    def _measure_doubtful(self, kth: Tensor, points: Tensor, last: Tensor, largest_half_norm: Tensor) -> None:
        """Search again without a matrix product where its rounding could have hidden a nearer neighbour."""
        half_norm = 0.5 * points.square().sum(dim=1)
        rounding = _ROUNDING * (half_norm + largest_half_norm)
        doubtful = 0.5 * kth.square() > half_norm - last - rounding
        for row in doubtful.nonzero().flatten().tolist():
            exact = torch.linalg.vector_norm(self.bank - points[row], dim=1)
            kth[row] = exact.kthvalue(self.k).values
