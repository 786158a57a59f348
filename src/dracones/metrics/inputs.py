"""What the metrics accept: NumPy arrays, tensors of any device and dtype, lists; refused early and by name."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.floating]
Bool = NDArray[np.bool_]

_LARGEST_EXACT_INTEGER = 2**53


def to_numpy(values: Any) -> NDArray[Any]:
    """Array of the same numbers: a tensor is detached, moved to the CPU, and read without importing torch.

    NumPy has no bfloat16 or float8, so tensors of those are widened to float32, which is exact.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if any(name in str(values.dtype) for name in ("bfloat16", "float8")):
            values = values.float()
        array: NDArray[Any] = values.numpy()
        return array
    return np.asarray(values)


def to_scores(values: Any, what: str = "scores") -> Float:
    """Scores as float32 or float64, never rounded: what does not fit float32 exactly stays in float64.

    Raises:
        TypeError: not numbers.
        ValueError: NaN among them (with their count), or integers beyond 2^53, which float64 would round.
    """
    array = to_numpy(values)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "b" or (kind in "iuf" and size <= 2):
        return array.astype(np.float32)
    if kind in "iu":
        if size == 8 and array.size and max(-int(array.min()), int(array.max())) > _LARGEST_EXACT_INTEGER:
            raise ValueError(f"{what}: integers beyond 2^53 cannot be ranked exactly; pass floats or ranks")
        return array.astype(np.float64)
    if kind != "f" or size > 8:
        raise TypeError(f"{what}: expected real numbers of at most 64 bits, got dtype {array.dtype}")
    refuse_nan(array, what)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def refuse_nan(array: Float, what: str) -> None:
    """Raise ValueError with the number of NaN: a NaN has no place in an order."""
    # A minimum is NaN if any value is, and costs a fifth of a mask.
    if array.size and np.isnan(array.min()):
        count = int(np.isnan(array).sum())
        raise ValueError(f"{what}: {count} of {array.size} are NaN; a NaN has no rank, find out where it comes from")


def to_labels(values: Any, what: str = "labels") -> Bool:
    """Labels as booleans, True = anomalous: from booleans or the numbers 0 and 1, nothing else."""
    array = to_numpy(values)
    if array.dtype.kind == "b":
        return array
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{what}: expected booleans or the numbers 0 and 1, got dtype {array.dtype}")
    labels = array.astype(np.bool_)
    if not np.array_equal(labels, array):
        strange = array[labels != array]
        raise ValueError(
            f"{what}: expected 0 (normal) or 1 (anomalous), got {strange.size} other values such as {strange.flat[0]}"
        )
    return labels


def to_masks(values: Any, what: str = "masks") -> Bool:
    """Masks as booleans, True = anomalous pixel: from booleans, 0 and 1, or the 0 and 255 of mask files."""
    array = to_numpy(values)
    if array.dtype.kind in "iuf" and array.size and array.max() == 255:
        if not np.array_equal(array, (array != 0) * array.dtype.type(255)):
            raise ValueError(f"{what}: expected 0 or 255, got values between; threshold soft masks first")
        return array.astype(np.bool_)
    return to_labels(array, what)


def to_scores_and_labels(scores: ArrayLike, labels: ArrayLike) -> tuple[Float, Bool]:
    """Both, flattened and checked against one another.

    Raises:
        ValueError: shapes differ, nothing given, or only one class among the labels.
    """
    read_scores, read_labels = to_scores(scores), to_labels(labels)
    if read_scores.shape != read_labels.shape:
        raise ValueError(f"scores and labels: expected the same shape, got {read_scores.shape} and {read_labels.shape}")
    if not read_scores.size:
        raise ValueError("scores: expected at least one of each class, got none at all")
    anomalous = int(np.count_nonzero(read_labels))
    if anomalous in (0, read_labels.size):
        only = "normal (0)" if anomalous == 0 else "anomalous (1)"
        raise ValueError(f"labels: all {read_labels.size} are {only}; a metric of order needs both classes")
    return read_scores.ravel(), read_labels.ravel()
