"""Real photographs that need no download: they come inside scikit-image's own package."""

from collections.abc import Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dracones.images.reading import decode

# name -> file in skimage/data. Only photographs; drawings and test patterns are left out.
_FILES = {
    "astronaut": "astronaut.png",
    "brick": "brick.png",
    "camera": "camera.png",
    "cell": "cell.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "hubble_deep_field": "hubble_deep_field.jpg",
    "ihc": "ihc.png",
    "moon": "moon.png",
    "motorcycle_left": "motorcycle_left.png",
    "motorcycle_right": "motorcycle_right.png",
    "page": "page.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
}


def builtin_photographs() -> list[str]:
    """Names that `builtin_photograph` knows and whose files are installed.

    Example:
        >>> "gravel" in builtin_photographs()
        True
    """
    folder = _folder()
    return [name for name, file in _FILES.items() if (folder / file).is_file()]


def builtin_photograph(name: str, channels: int | None = None) -> Tensor:
    """The photograph `[C, H, W]`, float32 in [0, 1]; gray ones have one channel unless `channels` says otherwise.

    Raises:
        ValueError: there is no photograph of that name (the nearest are named).

    Example:
        >>> builtin_photograph("gravel").shape
        torch.Size([1, 512, 512])
        >>> builtin_photograph("gravel", channels=3).shape
        torch.Size([3, 512, 512])
    """
    from dracones.images.preprocess import Preprocess

    image = torch.from_numpy(photograph_pixels(name).transpose(2, 0, 1).astype(np.float32)).div_(255)
    return image if channels is None else Preprocess(channels=channels)(image, levels=256).contiguous()


def photograph_pixels(name: str) -> np.ndarray:
    """The photograph as stored, uint8 `[H, W, C]`."""
    known = builtin_photographs()
    if name not in known:
        near = get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"no built-in photograph {name!r}{hint} Available: {', '.join(known)}")
    path = _folder() / _FILES[name]
    return decode(path.read_bytes(), path.name)


def crops(photo: Tensor, size: int | tuple[int, int], count: int, seed: int | torch.Generator = 0) -> Tensor:
    """`count` random square (or `(height, width)`) cut-outs of `[C, H, W]`: `[count, C, height, width]`.

    Places are uniform, and independent of what the process drew before; the same seed gives the same crops.

    Raises:
        ValueError: the photograph is smaller than a crop.

    Example:
        >>> crops(builtin_photograph("gravel"), 32, 10, seed=1).shape
        torch.Size([10, 1, 32, 32])
    """
    height, width = (size, size) if isinstance(size, int) else size
    if photo.ndim != 3 or not (0 < height <= photo.shape[1] and 0 < width <= photo.shape[2]):
        raise ValueError(f"crops of {height}x{width} out of a photograph of shape {tuple(photo.shape)} [C, H, W]")
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    tops = torch.randint(photo.shape[1] - height + 1, (count,), generator=generator).tolist()
    lefts = torch.randint(photo.shape[2] - width + 1, (count,), generator=generator).tolist()
    images = torch.empty((count, photo.shape[0], height, width), dtype=photo.dtype)
    for image, top, left in zip(images, tops, lefts, strict=True):
        image.copy_(photo[:, top : top + height, left : left + width])
    return images


def halves(photo: Tensor, share: float = 0.5) -> Sequence[Tensor]:
    """The photograph cut in two along its width, `share` of it to the left: crops of the two never overlap.

    Example:
        >>> [tuple(part.shape) for part in halves(builtin_photograph("gravel"), 0.75)]
        [(1, 512, 384), (1, 512, 128)]
    """
    cut = round(photo.shape[2] * share)
    if not 0 < cut < photo.shape[2]:
        raise ValueError(f"share={share} leaves one side of {photo.shape[2]} columns empty")
    return photo[:, :, :cut], photo[:, :, cut:]


def _folder() -> Path:
    # Located without importing scikit-image, which takes longer than reading the file.
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("scikit-image, which holds the built-in photographs, is not installed")
    return Path(spec.origin).parent / "data"
