"""Guards that read the logits alone: MSP, maximum logit, energy, entropy, generalised entropy.

All are exact where a softmax in float32 is not: a classifier sure to eight digits has ``max softmax == 1`` for half of
its images, and a score that ties them can neither rank nor give a p-value. What is summed here is the probability of
the *other* classes, so that such images keep their order.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from dracones.methods.guards.config import GuardConfig
from dracones.methods.guards.guard import Guard
from dracones.methods.info import MethodInfo
from dracones.methods.registry import register


def _checked(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """The logits divided by the temperature, at least in float32."""
    if logits.ndim != 2:
        raise ValueError(f"logits must be [B, K], got shape {tuple(logits.shape)}")
    if logits.shape[1] < 2:
        raise ValueError(
            f"logits must have at least two classes, got K={logits.shape[1]}; one class has no softmax score"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype}; labels are not logits")
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return wide if temperature == 1.0 else wide / temperature


def _others(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logits relative to the largest, and the summed odds ``sum_{i != max} exp(f_i - f_max)`` of all other classes."""
    top, index = logits.max(dim=1, keepdim=True)
    # A class at minus infinity keeps a finite log-probability, so that p log p is 0 and not NaN.
    relative = (logits - top).clamp_min(torch.finfo(logits.dtype).min)
    return relative, relative.exp().scatter(1, index, 0.0).sum(dim=1, keepdim=True)


def _log1p(x: Tensor) -> Tensor:
    """``log(1 + x)`` for x >= 0 from operations that every runtime has (Kahan): ONNX knows no log1p."""
    whole = 1 + x
    lost = whole - 1
    return torch.where(lost == 0, x, whole.log() * (x / torch.where(lost == 0, torch.ones_like(x), lost)))


def log_probabilities(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Log-softmax whose largest entry stays below 0 down to odds of 1e-38, ``[B, K]``, nats.

    >>> f"{log_probabilities(torch.tensor([[30.0, 0.0]]))[0, 0].item():.4g}"
    '-9.358e-14'
    """
    relative, others = _others(_checked(logits, temperature))
    return relative - _log1p(others)


@register
class Msp(Guard):
    """One minus the maximum softmax probability: `Msp.score`."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="msp",
        title="A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks",
        authors=("Hendrycks", "Gimpel"),
        year=2017,
        url="https://arxiv.org/abs/1610.02136",
        family="classifier",
        needs=("images", "classifier"),
        summary="one minus the largest softmax probability: the baseline",
    )

    class Config(GuardConfig):
        """Options of MSP."""

        temperature: float = Field(1.0, gt=0, description="divides the logits")

    config: Config

    @staticmethod
    def score(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
        """``1 - max_i softmax(f / T)_i`` of logits ``[B, K]``, in [0, 1 - 1/K].

        The paper's score is ``max softmax`` with in-distribution large; here the sign is turned and 1 added, so that
        the number is the probability the classifier gives to being wrong.

        >>> Msp.score(torch.tensor([[0.0, 0.0], [2.0, 0.0]]))
        tensor([0.5000, 0.1192])
        """
        _, others = _others(_checked(logits, temperature))
        return (others / (1.0 + others)).squeeze(1)

    def formula(self, logits: Tensor, features: Tensor | None) -> Tensor:  # noqa: ARG002
        """`score` at the configured temperature."""
        return self.score(logits, temperature=self.config.temperature)


@register
class MaxLogit(Guard):
    """Minus the largest logit: `MaxLogit.score`."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="max_logit",
        title="Scaling Out-of-Distribution Detection for Real-World Settings",
        authors=("Hendrycks", "Basart", "Mazeika", "Zou", "Kwon", "Mostajabi", "Steinhardt", "Song"),
        year=2022,
        url="https://arxiv.org/abs/1911.11132",
        family="classifier",
        needs=("images", "classifier"),
        summary="minus the largest logit",
    )

    @staticmethod
    def score(logits: Tensor) -> Tensor:
        """``-max_i f_i`` of logits ``[B, K]``.

        >>> MaxLogit.score(torch.tensor([[1.0, 3.0]]))
        tensor([-3.])
        """
        return -_checked(logits).amax(dim=1)

    def formula(self, logits: Tensor, features: Tensor | None) -> Tensor:  # noqa: ARG002
        """`score`."""
        return self.score(logits)


@register
class Energy(Guard):
    """Free energy of the logits: `Energy.score`."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="energy",
        title="Energy-based Out-of-distribution Detection",
        authors=("Liu", "Wang", "Owens", "Li"),
        year=2020,
        url="https://arxiv.org/abs/2010.03759",
        family="classifier",
        needs=("images", "classifier"),
        summary="free energy, minus the log-sum-exp of the logits",
    )

    class Config(GuardConfig):
        """Options of the energy."""

        temperature: float = Field(1.0, gt=0, description="T; 1 in the paper")

    config: Config

    @staticmethod
    def score(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
        """``-T log sum_i exp(f_i / T)`` (the paper's eq. 4; it thresholds the negative), nats at T = 1.

        >>> Energy.score(torch.tensor([[0.0, 0.0]]))
        tensor([-0.6931])
        """
        return -temperature * torch.logsumexp(_checked(logits, temperature), dim=1)

    def formula(self, logits: Tensor, features: Tensor | None) -> Tensor:  # noqa: ARG002
        """`score` at the configured temperature."""
        return self.score(logits, temperature=self.config.temperature)


@register
class Entropy(Guard):
    """Shannon entropy of the softmax: `Entropy.score`. Hendrycks & Gimpel, ICLR 2017, name it beside MSP."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="entropy",
        title="Entropy Maximization and Meta Classification for Out-of-Distribution Detection in Semantic Segmentation",
        authors=("Chan", "Rottmann", "Gottschalk"),
        year=2021,
        url="https://arxiv.org/abs/2012.06575",
        family="classifier",
        needs=("images", "classifier"),
        summary="Shannon entropy of the softmax",
    )

    @staticmethod
    def score(logits: Tensor) -> Tensor:
        """Nats, in [0, log K].

        >>> [f"{h:.3g}" for h in Entropy.score(torch.tensor([[0.0, 0.0], [50.0, 0.0]])).tolist()]
        ['0.693', '9.84e-21']
        """
        log_p = log_probabilities(logits)
        return -(log_p.exp() * log_p).sum(dim=1)

    def formula(self, logits: Tensor, features: Tensor | None) -> Tensor:  # noqa: ARG002
        """`score`."""
        return self.score(logits)


@register
class Gen(Guard):
    """Generalised entropy of the M most likely classes: `Gen.score`."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="gen",
        title="GEN: Pushing the Limits of Softmax-Based Out-of-Distribution Detection",
        authors=("Liu", "Lochman", "Zach"),
        year=2023,
        url="https://openaccess.thecvf.com/content/CVPR2023/papers/Liu_GEN_Pushing_the_Limits_of_Softmax-Based_"
        "Out-of-Distribution_Detection_CVPR_2023_paper.pdf",
        family="classifier",
        needs=("images", "classifier"),
        summary="generalised entropy, which weighs small probabilities more than Shannon's",
    )

    class Config(GuardConfig):
        """Options of GEN."""

        gamma: float = Field(0.1, gt=0, lt=1, description="exponent; 0.1 in the paper")
        top: int = Field(100, ge=1, description="M, the most likely classes that are summed; 100 in the paper")

    config: Config

    @staticmethod
    def score(logits: Tensor, *, gamma: float = 0.1, top: int = 100, floor: float = 0.0) -> Tensor:
        """``sum_{top M} p^gamma (1 - p)^gamma`` of logits ``[B, K]``; the paper's score is minus this (eq. 4).

        pytorch-ood takes the mean instead of the sum, and clamps p to [1e-7, 1 - 1e-7]: ``floor`` does the latter,
        rounded as there (0: the formula as published).

        >>> Gen.score(torch.tensor([[0.0, 0.0]]), gamma=0.5)
        tensor([1.])
        """
        if not 0 < gamma < 1:
            raise ValueError(f"gamma must be between 0 and 1, got {gamma}")
        if top < 1:
            raise ValueError(f"top (the paper's M) must be at least 1, got {top}")
        logits = _checked(logits)
        count = min(top, logits.shape[1])
        if floor > 0:
            # Rounded as in pytorch-ood: 1 - p of a sure prediction is a multiple of 6e-8; its tenth power shows it.
            probability = torch.softmax(logits, dim=1).clamp(floor, 1 - floor)
            probability = probability.topk(count, dim=1).values
            return (probability.pow(gamma) * (1 - probability).pow(gamma)).sum(dim=1)
        relative, others = _others(logits)
        total = _log1p(others)
        log_p = relative.topk(count, dim=1).values - total
        # 1 - p of the likeliest class is the share of the others, which keeps the digits that a difference would lose;
        # every other class has p <= 1/2, where the difference keeps them.
        log_rest = torch.cat([others.log() - total, (1 - log_p[:, 1:].exp()).log()], dim=1)
        return (gamma * (log_p + log_rest)).exp().sum(dim=1)

    def formula(self, logits: Tensor, features: Tensor | None) -> Tensor:  # noqa: ARG002
        """`score` with the configured exponent and number of classes."""
        return self.score(logits, gamma=self.config.gamma, top=self.config.top)
