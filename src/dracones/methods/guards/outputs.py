"""What a classifier says of a batch, and the refusal of what is not that."""

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from dataclasses import fields as fields_of
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
        ValueError: not ``[B, K]`` with K at least 2.
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
    return logits if logits.dtype == torch.float64 else logits.float()


def check_finite(logits: Tensor) -> None:
    """Refuse logits that are not numbers; once a batch, outside any graph.

    Raises:
        ValueError: NaN or infinity inside (counted).
    """
    finite = torch.isfinite(logits)
    if bool(finite.all()):
        return
    rows = int((~finite).any(dim=1).sum())
    raise ValueError(
        f"the classifier returned {int((~finite).sum())} logits that are NaN or infinite, in {rows} of {len(logits)} "
        "images; half precision overflows at 65504: score in float32 or bfloat16, and check the images' range"
    )


def _pick(answer: Any, output: str | int | None) -> Tensor:
    if isinstance(answer, Tensor):
        if output is not None:
            raise TypeError(f"output={output!r} was given, but the classifier returned one tensor; leave output out")
        return answer
    fields = _fields(answer)
    if isinstance(fields, Mapping) and not isinstance(output, int):
        if output is None:
            raise TypeError(
                f"the classifier returned a {type(answer).__name__} with keys {sorted(map(str, fields))}, not a "
                "tensor of logits; name the one that holds them: output='logits'"
            )
        if output not in fields:
            raise TypeError(f"output={output!r} is not among the classifier's keys {sorted(map(str, fields))}")
        return _pick(fields[output], None)
    parts = answer if isinstance(answer, (tuple, list)) else None if fields is None else list(fields.values())
    if parts is not None:
        if output is None:
            raise TypeError(
                f"the classifier returned a {type(answer).__name__} of {len(parts)}, not a tensor of logits; "
                "say where they are: output=0"
            )
        if not isinstance(output, int) or not -len(parts) <= output < len(parts):
            raise TypeError(
                f"output={output!r} is no position in the classifier's {type(answer).__name__} of {len(parts)}"
            )
        return _pick(parts[output], None)
    raise TypeError(f"the classifier returned {type(answer).__name__}, expected a tensor of logits [B, K]")


def _fields(answer: Any) -> Mapping[Any, Any] | None:
    """What an answer holds by name: a mapping, a dataclass, a named tuple."""
    if isinstance(answer, Mapping):
        return answer
    if is_dataclass(answer) and not isinstance(answer, type):
        return {field.name: getattr(answer, field.name) for field in fields_of(answer)}
    if isinstance(answer, tuple) and hasattr(answer, "_fields"):
        return dict(zip(answer._fields, answer, strict=True))
    return None


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


def accuracy_of(outputs: ClassifierOutputs, labels: Tensor | None) -> float | None:
    """Share of images whose largest logit is their label's; ``None`` where no whole number labels each of them."""
    if labels is None or labels.shape != (len(outputs),) or labels.is_floating_point():
        return None
    return float((outputs.logits.argmax(dim=1) == labels).double().mean())


def check_head(head: LinearHead | None, outputs: ClassifierOutputs, who: str) -> None:
    """Refuse a last layer that does not turn the features into the logits.

    Raises:
        ValueError: absent, of another width, or with another product.
    """
    if head is None:
        raise ValueError(
            f"{who} needs the classifier's last linear layer (weight [K, F], bias [K]); none was found: "
            "read the layer whose output the last Linear takes, or use a score of logits"
        )
    features = outputs.needed_features(who)[:256]
    if features.shape[1] != head.weight.shape[1]:
        raise ValueError(
            f"{who}: features have {features.shape[1]} dimensions, the last layer reads {head.weight.shape[1]}; "
            "read the layer right before the last one"
        )
    expected = outputs.logits[:256]
    got = head(features).to(expected)
    # Half precision rounds logits at about 1e-2 of their size; a wrong layer misses by their whole spread.
    if expected.shape != got.shape or (got - expected).abs().max() > 0.05 * expected.std().clamp_min(1e-6):
        raise ValueError(
            f"{who}: last layer times features does not give the logits, so these are not the features it reads; "
            "read the layer right before the last one"
        )
