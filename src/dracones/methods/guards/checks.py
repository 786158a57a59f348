"""What can be seen in a classifier's answers before anything is learnt from them: once, on a few images."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dracones.methods.guards.warning import warn_caller
from dracones.methods.guards.watching import Watch

_NO_LOGITS = (nn.Sigmoid, nn.Tanh, nn.Softsign, nn.Hardsigmoid, nn.Hardtanh)


def refuse_probabilities(logits: Tensor) -> None:
    """Refuse a softmax's output, warn of a log-softmax's.

    Raises:
        ValueError: every row is non-negative and sums to 1.
    """
    if bool((logits >= 0).all()) and torch.allclose(
        logits.sum(dim=1), torch.ones_like(logits[:, 0]), atol=5e-3 if len(logits) > 1 else 1e-4
    ):
        raise ValueError(
            "the classifier returns probabilities (non-negative rows that sum to 1), not logits; temperature, "
            "energy and "
            "max logit need the values before the softmax: remove the last softmax"
        )
    if torch.allclose(logits.logsumexp(dim=1), torch.zeros_like(logits[:, 0]), atol=1e-3):
        warn_caller(
            "the classifier returns log-probabilities (log-sum-exp 0 for every image): energy is constant and "
            "max logit "
            "equals MSP; remove the last log-softmax"
        )


def warn_if_no_logits(logits: Tensor, watch: Watch) -> None:
    """Warn of outputs that do not look like logits: squashed, never negative, or the same for every image."""
    last = next((call for call in reversed(watch.calls) if call.output_shape == logits.shape), None)
    low, high = float(logits.min()), float(logits.max())
    reason = ""
    if last is not None and isinstance(last.module, _NO_LOGITS):
        reason = f"they come out of {last.name!r} ({type(last.module).__name__}); remove it"
    elif low >= -1 and high <= 1 and max(-low, high) > 0.9:
        reason = (
            f"all lie between {low:.3g} and {high:.3g}, as after a tanh, a sigmoid or a cosine; remove or unscale it"
        )
    elif low >= 0 and logits.numel() >= 16:
        reason = "none is negative, as in features after a ReLU; give the classifier with its last layer"
    elif len(logits) > 1 and float((logits - logits[:1]).abs().max()) == 0:
        reason = "they are the same for every image; are its weights loaded, and are the images' values in [0, 1]?"
    if reason:
        warn_caller(f"the classifier's outputs do not look like logits: {reason}")


@contextmanager
def warn_of_foreign_statistics(view: nn.Module) -> Iterator[None]:
    """Warn where the first BatchNorm meets a spread far from what it was trained on: a forgotten mean and std."""
    norm = next((m for m in view.modules() if isinstance(m, nn.BatchNorm2d)), None)
    if norm is None or norm.running_var is None or not norm.num_batches_tracked:
        yield
        return
    met: list[Tensor] = []
    forward = norm.forward

    def note(x: Tensor) -> Tensor:
        met.append(x.detach().float().transpose(0, 1).flatten(1).var(dim=1))
        return forward(x)

    norm.__dict__["forward"] = note
    try:
        yield
    finally:
        norm.__dict__["forward"] = forward
    ratio = float((met[0] / norm.running_var.float().clamp_min(1e-12)).median()) if met else 1.0
    if not 1 / 8 <= ratio <= 8:
        warn_caller(
            f"the classifier's first BatchNorm meets {ratio:.2g} times the variance it was trained on: images in "
            "[0, 1] where it wants normalised ones (give mean and std), or the other way round?"
        )


def refuse_dependence(inputs: Tensor, answer: Callable[[Tensor], Tensor], together: Tensor) -> None:
    """Refuse a classifier whose answer for an image depends on chance or on the batch it comes in.

    Args:
        inputs: a few prepared images.
        answer: their logits.
        together: what it gave for all of them in one batch.

    Raises:
        ValueError: it answered differently, with the difference.
    """
    spread = float((together.amax(dim=1) - together.amin(dim=1)).max().clamp_min(1e-12))
    once, again = answer(inputs[:1]), answer(inputs[:1])
    chance = float((once - again).abs().max()) / spread
    if chance > 0.01:
        raise ValueError(
            f"the classifier answers differently for the same image (logits differ by {chance:.1%} of their range): "
            "a dropout or noise that stays on in eval mode; scores and thresholds would be drawn by lot"
        )
    if len(inputs) < 2:
        return
    alone = torch.cat([once, answer(inputs[1:2])])
    batch = float((alone - together[:2]).abs().max()) / spread
    if batch > 0.05:
        raise ValueError(
            f"the classifier's answer for an image depends on the batch it comes in (logits of one image alone differ "
            f"by {batch:.1%} of their range): a BatchNorm without running statistics, or a mean over the batch; "
            "a threshold would not hold for images scored in other batches"
        )
