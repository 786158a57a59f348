"""ODIN's input step: towards what the classifier already believes, by the sign of one gradient."""

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from dracones.methods.guards.outputs import logits_of
from dracones.methods.guards.probe import ClassifierProbe
from dracones.methods.guards.views import eval_view

Precision = Literal["own", "bfloat16"]


def input_gradient(
    probe: ClassifierProbe, inputs: Tensor, temperature: float, precision: Precision = "own"
) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of ``T * CE(f(x) / T, argmax f(x))`` for the input alone, ``[B, C, H, W]``.

    ``precision="bfloat16"`` takes both passes under autocast: faster where the hardware multiplies bfloat16, while the
    sign of the smallest gradients, hence the score, changes a little.

    One forward and one backward for the batch. The cross-entropy's own gradient, ``softmax(f / T) - onehot``, is
    written down rather than recorded: without the factor 1 / T and the mean over the batch, which the sign ignores, it
    does not vanish in half precision at T = 1000. No parameter's gradient is computed or kept.

    Raises:
        ValueError: no gradient reaches the input, or it holds NaN.
    """
    inputs = inputs.detach().requires_grad_()
    with torch.inference_mode(False), torch.enable_grad():
        if inputs.is_inference():
            inputs = inputs.detach().clone().requires_grad_()
        narrow = precision == "bfloat16"
        with torch.autocast(inputs.device.type, torch.bfloat16) if narrow else contextlib.nullcontext():
            # A view without parameters' gradients: autograd keeps nothing that only those would need. The copy is for
            # classifiers that work in place, which a leaf refuses.
            view = eval_view(probe.running if probe.accelerate else probe.classifier, detached=True)
            logits = logits_of(view(inputs.clone()), probe.output)
        if not logits.requires_grad:
            raise ValueError(
                "no gradient reaches the classifier's input, which ODIN needs: it runs under no_grad or "
                "inference_mode, rounds "
                "(quantised), or detaches its input; use a score without gradients (msp, energy, ...), or odin "
                "with epsilon=0"
            )
        belief = torch.softmax(logits.detach() / temperature, dim=1)
        direction = belief.scatter_add(1, logits.detach().argmax(dim=1, keepdim=True), -torch.ones_like(belief[:, :1]))
        (gradient,) = torch.autograd.grad(logits, inputs, direction, allow_unused=True)
    if gradient is None:
        raise ValueError("the classifier's logits do not depend on its input by a gradient, which ODIN needs")
    bad = int(torch.isnan(gradient).sum())
    if bad:
        raise ValueError(
            f"the gradient for the input holds {bad} NaN; check the classifier for square roots or norms at zero"
        )
    return logits.detach(), gradient


def step(inputs: Tensor, gradient: Tensor, epsilon: float, std: Tensor | None = None) -> Tensor:
    """``x - epsilon * sign(gradient) / std``, the sign of zero being +1 as in the authors' code; not clipped.

    ``epsilon`` is in units of images in [0, 1]; ``std`` ``[1, C, 1, 1]`` is what the inputs were divided by.

    Reference: Liang, Li, Srikant, "Enhancing The Reliability of Out-of-distribution Image Detection in Neural
    Networks", ICLR 2018, eq. 2.

    >>> step(torch.zeros(1, 1, 1, 2), torch.tensor([[[[0.5, -0.5]]]]), 0.01, torch.full((1, 1, 1, 1), 0.5)).flatten()
    tensor([-0.0200,  0.0200])
    """
    length = torch.full_like(inputs[:1, :, :1, :1], epsilon) if std is None else epsilon / std.to(inputs)
    return torch.where(gradient >= 0, inputs - length, inputs + length)


def perturbed_logits(
    probe: ClassifierProbe,
    images: Tensor,
    temperature: float,
    epsilons: tuple[float, ...],
    precision: Precision = "own",
) -> Iterator[Tensor]:
    """Logits ``[B, K]`` after a step of each size, from one gradient; size 0 is the unperturbed pass."""
    # Gradients are switched off around each pass, never across a yield: a caller that stops half-way would stay off.
    with torch.no_grad():
        if not probe.inspected:
            probe.inspect(images)
        inputs = probe.prepare(images)
        if any(epsilons):
            unperturbed, gradient = input_gradient(probe, inputs, temperature, precision)
            std = None if probe.normalization is None else probe.normalization.std
        else:
            unperturbed, gradient, std = probe.run(inputs.clone()).logits, inputs, None
    for epsilon in epsilons:
        if epsilon == 0 and (precision == "own" or not any(epsilons)):
            yield unperturbed
        else:
            with torch.no_grad():
                logits = probe.run(step(inputs, gradient, epsilon, std) if epsilon else inputs.clone()).logits
            yield logits
