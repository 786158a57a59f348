"""Street View House Numbers, cropped digits (`train_32x32.mat`, `test_32x32.mat`, `extra_32x32.mat`).

Reference: Y. Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning", 2011.
"""

from pathlib import Path

import numpy as np

from dracones.images.formats.arrays import array_source
from dracones.images.formats.matlab import read_matlab_arrays
from dracones.images.limits import Limits
from dracones.images.sources import ArraySource

_ENDING = "_32x32.mat"


def svhn_splits(folder: Path) -> dict[str, Path]:
    """Split name (`train`, `test`, `extra`) to file, of the SVHN files directly in `folder`."""
    return {
        name: folder / f"{name}{_ENDING}"
        for name in ("train", "test", "extra")
        if (folder / f"{name}{_ENDING}").is_file()
    }


def svhn_source(path: Path, name: str, limits: Limits) -> ArraySource:
    """Images uint8 `[N, 32, 32, 3]` of `X` `[32, 32, 3, N]`, and the digits of `y`, in which 10 stands for 0.

    Raises:
        ValueError: no Matlab file of level 5 (version 7.3 is not), damaged, too large, or without such `X` and `y`.
    """
    try:
        found = read_matlab_arrays(path, limits)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as SVHN's cropped digits: {error}") from error
    images, marks = found.get("X"), found.get("y")
    if images is None or marks is None:
        raise ValueError(f"{path} is not SVHN's: expected the arrays X and y; it holds {', '.join(found) or 'none'}")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[2] != 3:
        raise ValueError(f"{path}: X is {images.dtype} of shape {images.shape}; expected uint8 [H, W, 3, N]")
    digits = marks.reshape(-1)
    strange = digits[~np.isin(digits, np.arange(11))]
    if len(strange):
        raise ValueError(f"{path}: y holds {strange[0]}; expected digits from 0 to 10, of which 10 stands for 0")
    digits = np.where(digits == 10, 0, digits).astype(np.int64)
    return array_source(
        np.ascontiguousarray(images.transpose(3, 0, 1, 2)),
        name,
        layout="NHWC",
        labels=digits,
        classes=[str(digit) for digit in range(10)],
    )
