"""What a classifier says of a batch, and the refusal of what is not that."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClassifierOutputs:
    """One pass over a batch.

    Attributes:
        logits: ``[B, K]`` float32 (float64 stays).
        features: ``[B, F]`` penultimate features in the same type, or ``None`` where no layer is read.
    """

    logits: Tensor
    features: Tensor | None = None

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, index: Any) -> "ClassifierOutputs":
        """The outputs of some of the images."""
        return ClassifierOutputs(self.logits[index], None if self.features is None else self.features[index])

    @classmethod
    def join(cls, parts: list["ClassifierOutputs"]) -> "ClassifierOutputs":
        """All batches as one."""
        if not parts:
            raise ValueError("no batch to join: the collection held no readable image")
        features = [p.features for p in parts if p.features is not None]
        return cls(
            torch.cat([p.logits for p in parts]),
            torch.cat(features) if len(features) == len(parts) else None,
        )

    def needed_features(self, who: str) -> Tensor:
        """The features, or an error that says who asked for them."""
        if self.features is None:
            raise ValueError(f"{who} reads penultimate features, got logits alone; give features=[B, F] as well")
        return self.features


@dataclass(frozen=True)
class LinearHead:
    """The classifier's last layer: ``logits = features @ weight.T + bias``.

    Attributes:
        weight: ``[K, F]``.
        bias: ``[K]``.
    """

    weight: Tensor
    bias: Tensor

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[:1]:
            raise ValueError(
                f"a last layer has weight [K, F] and bias [K], got {tuple(self.weight.shape)} and "
                f"{tuple(self.bias.shape)}"
            )

    def __call__(self, features: Tensor) -> Tensor:
        """Logits ``[B, K]`` of features ``[B, F]``."""
        return torch.nn.functional.linear(features, self.weight.to(features), self.bias.to(features))


def logits_of(answer: Any, output: str | int | None = None) -> Tensor:
    """The logits in what a classifier returned, in float32 (float64 stays).

    Args:
        answer: what ``classifier(images)`` gave.
        output: key or position of the logits where the classifier returns a mapping or a sequence.

    Raises:
        TypeError: not a tensor, and ``output`` does not say which part is.
        ValueError: not ``[B, K]`` with K at least 2, or NaN/inf inside (counted).
    """
    logits = _pick(answer, output)
    if logits.ndim != 2:
        raise ValueError(
            f"the classifier must return logits [B, K], got shape {tuple(logits.shape)}; flatten or pool them"
        )
    if logits.shape[1] < 2:
        raise ValueError(
            f"the classifier returned {logits.shape[1]} class; these scores compare classes and need at least two "
            "(for a sigmoid output z, give a model that returns [0, z])"
        )
    if not logits.is_floating_point():
        raise TypeError(f"the classifier returned {logits.dtype}, not logits; remove the argmax")
    if logits.dtype != torch.float64:
        logits = logits.float()
    bad = int((~torch.isfinite(logits.detach())).sum())
    if bad:
        rows = int((~torch.isfinite(logits.detach())).any(dim=1).sum())
        raise ValueError(
            f"the classifier returned {bad} logits that are NaN or infinite, in {rows} of {len(logits)} images; "
            "half precision overflows at 65504: score in float32 or bfloat16, and check the images' range"
        )
    return logits


def _pick(answer: Any, output: str | int | None) -> Tensor:
    if isinstance(answer, Tensor):
        if output is not None:
            raise TypeError(f"output={output!r} was given, but the classifier returned one tensor; leave output out")
        return answer
    if isinstance(answer, Mapping):
        if output is None:
            raise TypeError(
                f"the classifier returned a {type(answer).__name__} with keys {sorted(map(str, answer))}, not a "
                "tensor of logits; "
                "name the one that holds them: output='logits'"
            )
        if output not in answer:
            raise TypeError(f"output={output!r} is not among the classifier's keys {sorted(map(str, answer))}")
        return _pick(answer[output], None)
    if isinstance(answer, (tuple, list)):
        if output is None:
            raise TypeError(
                f"the classifier returned a {type(answer).__name__} of {len(answer)}, not a tensor of logits; "
                "say where they are: output=0"
            )
        if not isinstance(output, int) or not -len(answer) <= output < len(answer):
            raise TypeError(
                f"output={output!r} is no position in the classifier's {type(answer).__name__} of {len(answer)}"
            )
        return _pick(answer[output], None)
    raise TypeError(f"the classifier returned {type(answer).__name__}, expected a tensor of logits [B, K]")


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
        warnings.warn(
            "the classifier returns log-probabilities (log-sum-exp 0 for every image): energy is constant and "
            "max logit "
            "equals MSP; remove the last log-softmax",
            UserWarning,
            stacklevel=3,
        )


def check_labels(labels: Tensor | None, count: int, classes: int, *, who: str) -> Tensor:
    """Labels as ``[N]`` int64, one per image, each in ``0 .. K-1``.

    Raises:
        ValueError: absent, of another length, or out of range (with the worst ones).
    """
    if labels is None:
        raise ValueError(
            f"{who} needs class labels of the training images; give a folder with one sub-folder per class, "
            "a dataset with targets, or fit(images, labels=[N])"
        )
    if labels.shape != (count,):
        raise ValueError(f"{who}: labels must be [{count}], one per image, got {tuple(labels.shape)}")
    if labels.is_floating_point():
        raise TypeError(f"{who}: labels must be integers, got {labels.dtype}")
    labels = labels.long()
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise ValueError(
            f"{who}: {len(outside)} of {count} labels are outside 0..{classes - 1}, the classifier's {classes} classes "
            f"(found {sorted(set(outside.tolist()))[:5]}); map the folders' labels to the classifier's"
        )
    return labels
