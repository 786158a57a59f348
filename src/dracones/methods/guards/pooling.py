"""From a layer's tensor to one row of features an image."""

from typing import Literal

from torch import Tensor

Pool = Literal["rows", "space", "space_last", "tokens", "first_token"]


def pool(features: Tensor, how: Pool) -> Tensor:
    """``[B, F]``: ``space`` averages ``[B, C, ...]``, ``space_last`` and ``tokens`` average ``[B, ..., C]``.

    A copy also of rows, as a later layer may work in place.

    >>> import torch
    >>> pool(torch.ones(2, 3, 4, 4), "space").shape, pool(torch.ones(2, 4, 4, 3), "space_last").shape
    (torch.Size([2, 3]), torch.Size([2, 3]))
    """
    if how == "rows":
        return features.flatten(1).clone()
    if how == "space":
        return features.flatten(2).mean(dim=2)
    if how == "first_token":
        return features[:, 0].clone()
    return features.flatten(1, -2).mean(dim=1)


def poolings(features: Tensor) -> tuple[Pool, ...]:
    """The ways that a tensor of this shape can be brought to rows, the usual one first."""
    if features.ndim < 2:
        return ()
    if features.ndim == 2 or features[0].numel() == features.shape[1]:
        return ("rows",)
    return ("tokens", "first_token", "space") if features.ndim == 3 else ("space", "space_last")


def pooled(features: object, how: Pool | None = None) -> Tensor:
    """Rows of a layer's output, by the usual way for its shape if none is given.

    Raises:
        TypeError: not a tensor.
        ValueError: no batch and feature dimension.
    """
    if not isinstance(features, Tensor):
        raise TypeError(f"the layer gives {type(features).__name__}, not a tensor; name another layer")
    ways = poolings(features)
    if not ways:
        raise ValueError(f"features must have a batch and a feature dimension, got shape {tuple(features.shape)}")
    return pool(features, how or ways[0])
