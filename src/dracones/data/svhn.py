"""Street View House Numbers, cropped digits (`train_32x32.mat`, `test_32x32.mat`, `extra_32x32.mat`).

Reference: Y. Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning", 2011.
"""

from pathlib import Path

import numpy as np

from .arrays import array_source
from .limits import Limits
from .sources import ArraySource

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
        ValueError: no Matlab file that scipy reads (version 7.3 is not), too large, or without such `X` and `y`.
    """
    from scipy.io import loadmat, whosmat

    try:
        shapes = {key: shape for key, shape, _ in whosmat(path)}
        if "X" not in shapes or "y" not in shapes:
            raise ValueError(f"expected the arrays X and y; it holds {', '.join(shapes) or 'none'}")
        if np.prod(shapes["X"], dtype=np.float64) > limits.max_array_bytes:
            raise ValueError(
                f"X of shape {shapes['X']} is more than Limits(max_array_bytes={limits.max_array_bytes:,})"
            )
        found = loadmat(path, variable_names=["X", "y"])
    # scipy fails on damaged files in many ways, and on version 7.3 with NotImplementedError; all mean the same here.
    except Exception as error:
        raise ValueError(f"{path} cannot be read as SVHN's cropped digits: {error or type(error).__name__}") from error
    images, digits = found["X"], found["y"].reshape(-1)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[2] != 3:
        raise ValueError(f"{path}: X is {images.dtype} of shape {images.shape}; expected uint8 [H, W, 3, N]")
    digits = np.where(digits == 10, 0, digits).astype(np.int64)
    return array_source(
        np.ascontiguousarray(images.transpose(3, 0, 1, 2)),
        name,
        layout="NHWC",
        labels=digits,
        classes=[str(digit) for digit in range(10)],
    )
