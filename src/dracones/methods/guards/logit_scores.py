"""Scores that need the logits alone: pure functions ``[B, K] -> [B]``, larger = more anomalous.

All are exact where a softmax in float32 is not: a classifier sure to eight digits has ``max softmax == 1`` for half
    of its
images, and a score that ties them can neither rank nor give a p-value. What is summed here is the probability of the
*other* classes, so that such images keep their order.
"""

import torch
from torch import Tensor


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


def log_probabilities(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Log-softmax whose largest entry stays below 0 down to odds of 1e-38, ``[B, K]``, nats.

    >>> f"{log_probabilities(torch.tensor([[30.0, 0.0]]))[0, 0].item():.4g}"
    '-9.358e-14'
    """
    relative, others = _others(_checked(logits, temperature))
    return relative - torch.log1p(others)


def msp(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """One minus the maximum softmax probability: ``1 - max_i softmax(f / T)_i``, in [0, 1 - 1/K].

    The paper's score is ``max softmax`` with in-distribution large; here the sign is turned and 1 added, so that the
    number is the probability the classifier gives to being wrong.

    Reference: Hendrycks & Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural
    Networks", ICLR 2017.

    >>> msp(torch.tensor([[0.0, 0.0], [2.0, 0.0]]))
    tensor([0.5000, 0.1192])
    """
    _, others = _others(_checked(logits, temperature))
    return (others / (1.0 + others)).squeeze(1)


def max_logit(logits: Tensor) -> Tensor:
    """Minus the largest logit.

    Reference: Hendrycks et al., "Scaling Out-of-Distribution Detection for Real-World Settings", ICML 2022.

    >>> max_logit(torch.tensor([[1.0, 3.0]]))
    tensor([-3.])
    """
    return -_checked(logits).amax(dim=1)


def energy(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Free energy ``-T log sum_i exp(f_i / T)`` (the paper's eq. 4; it thresholds the negative), nats at T = 1.

    Reference: Liu, Wang, Owens, Li, "Energy-based Out-of-distribution Detection", NeurIPS 2020.

    >>> energy(torch.tensor([[0.0, 0.0]]))
    tensor([-0.6931])
    """
    return -temperature * torch.logsumexp(_checked(logits, temperature), dim=1)


def entropy(logits: Tensor) -> Tensor:
    """Shannon entropy of the softmax, nats, in [0, log K].

    Reference: Hendrycks & Gimpel, ICLR 2017, name it beside MSP; Chan, Rottmann, Gottschalk, ICCV 2021, use it alone.

    >>> [f"{h:.3g}" for h in entropy(torch.tensor([[0.0, 0.0], [50.0, 0.0]])).tolist()]
    ['0.693', '9.84e-21']
    """
    log_p = log_probabilities(logits)
    return -(log_p.exp() * log_p).sum(dim=1)


def gen(logits: Tensor, *, gamma: float = 0.1, top: int = 100, floor: float = 0.0) -> Tensor:
    """Generalised entropy ``sum_{top M} p^gamma (1 - p)^gamma`` over the M most likely classes.

    The paper's score is minus this. pytorch-ood takes the mean instead of the sum, and clamps p to [1e-7, 1 - 1e-7]:
    ``floor`` does the latter, rounded as there (0: the formula as published).

    Reference: Liu, Lochman, Zach, "GEN: Pushing the Limits of Softmax-Based Out-of-Distribution Detection", CVPR
        2023, eq. 4.

    >>> gen(torch.tensor([[0.0, 0.0]]), gamma=0.5)
    tensor([1.])
    """
    if not 0 < gamma < 1:
        raise ValueError(f"gamma must be between 0 and 1, got {gamma}")
    if top < 1:
        raise ValueError(f"top (the paper's M) must be at least 1, got {top}")
    if floor > 0:
        # Rounded as in pytorch-ood: 1 - p of a sure prediction is a multiple of 6e-8, and its tenth power shows it.
        probability = torch.softmax(_checked(logits), dim=1).clamp(floor, 1 - floor)
        probability = probability.topk(min(top, probability.shape[1]), dim=1).values
        return (probability.pow(gamma) * (1 - probability).pow(gamma)).sum(dim=1)
    log_p = log_probabilities(logits)
    if top < log_p.shape[1]:
        log_p = log_p.topk(top, dim=1).values
    # 1 - p through expm1 keeps the digits that 1 - exp(log p) loses for a sure prediction.
    log_rest = torch.log(-torch.expm1(log_p))
    return (gamma * (log_p + log_rest)).exp().sum(dim=1)
