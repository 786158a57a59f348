"""Heat maps on disk: pictures to look at, and the numbers themselves."""

import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from dracones.files.atomic import write_bytes
from dracones.images import HEAT_SUFFIX
from dracones.report.images import map_picture, overlay

_LARGEST = 2048
"""Longer side of a picture; a file to look into may be larger than a picture on a page."""


def write_maps(
    folder: str | Path,
    names: str | Sequence[str],
    maps: ArrayLike | Sequence[ArrayLike],
    *,
    images: ArrayLike | Sequence[ArrayLike] | None = None,
    masks: ArrayLike | Sequence[ArrayLike | None] | None = None,
    threshold: float | None = None,
    low: float | None = None,
    high: float | None = None,
    raw: Literal["npy", "npz"] | None = "npy",
    pictures: bool = True,
    legend: bool = False,
) -> list[Path]:
    """Write each image's heat map as a PNG and as a float32 array, named after its image.

    The picture is the map over its image where `images` are given, else the map alone. Colours run from `low` to
    `high`, the same for all maps of a call; name both where maps are written in several calls.

    Args:
        folder: made if missing; subfolders of the names are kept, and nothing is written outside.
        names: one for each map, or a single name.
        maps: `[H, W]` each (sizes may differ), or a single one for a single name; larger = more anomalous.
        images: `[C, H, W]` each, of the maps' sizes.
        masks: `[H, W]` each or `None`; outlined in the picture.
        threshold: drawn as a contour.
        low: score drawn as cold; the median of all maps if not given.
        high: score drawn as hottest; the largest of all maps if not given.
        raw: `npy`, `npz` (compressed) or `None` for no arrays.
        pictures: whether to draw.
        legend: put the scale of the colours below each picture laid over its image.

    Returns:
        the files, in order.

    Example:
        >>> import tempfile
        >>> [path.name for path in write_maps(tempfile.mkdtemp(), "line3/bottle.png", np.eye(8))]
        ['bottle.png.npy', 'bottle.png.heat.png']
    """
    single = isinstance(names, str)
    listed = [names] if isinstance(names, str) else list(names)
    planes = [np.asarray(plane, dtype=np.float32) for plane in ([maps] if single else maps)]  # type: ignore[union-attr]
    _same_count("maps", planes, listed)
    shown = _aligned("images", images, listed, single=single)
    outlined = _aligned("masks", masks, listed, single=single)
    if pictures and planes and (low is None or high is None):
        finite = np.concatenate([plane[np.isfinite(plane)].ravel() for plane in planes])
        low = (float(np.median(finite)) if len(finite) else 0.0) if low is None else low
        high = (float(finite.max()) if len(finite) else 1.0) if high is None else high
    written: list[Path] = []
    for name, plane, image, mask in zip(listed, planes, shown, outlined, strict=True):
        target = Path(folder) / _inside(name)
        if raw is not None:
            written.append(_write_raw(target, plane, raw))
        if pictures:
            drawn = (
                map_picture(plane, low=low, high=high)
                if image is None
                else overlay(
                    image, plane, mask=mask, threshold=threshold, low=low, high=high, legend=legend, largest=_LARGEST
                )
            )
            written.append(write_bytes(target.with_name(target.name + HEAT_SUFFIX), drawn.data))
    return written


def write_mask(folder: str | Path, name: str, mask: ArrayLike) -> Path:
    """Write which pixels are anomalous as a PNG of 0 and 255, named after its image: `NAME_mask.png`.

    Folders of such files are read back as masks of their images (`open_images(..., masks=folder)`).

    Example:
        >>> import tempfile
        >>> write_mask(tempfile.mkdtemp(), "line3/bottle.png", np.eye(8, dtype=bool)).name
        'bottle_mask.png'
    """
    target = Path(folder) / _inside(name)
    out = io.BytesIO()
    Image.fromarray(np.asarray(mask, dtype=np.bool_).astype(np.uint8) * np.uint8(255)).save(out, format="PNG")
    return write_bytes(target.with_name(f"{target.stem}_mask.png"), out.getvalue())


def _write_raw(target: Path, plane: np.ndarray[Any, Any], kind: Literal["npy", "npz"]) -> Path:
    path = target.with_name(f"{target.name}.{kind}")
    # By way of memory: NumPy writes to an open file past Python, and does not see that the disk is full.
    out = io.BytesIO()
    if kind == "npy":
        np.save(out, plane, allow_pickle=False)
    else:
        np.savez_compressed(out, map=plane)
    return write_bytes(path, out.getvalue())


def _inside(name: str) -> PurePosixPath:
    """A relative path made of harmless parts; one that had to be changed gets a mark of its own, so that none collide.

    The suffix stays: `a.png` and `a.jpg` may lie side by side.
    """
    given = list(PurePosixPath(name.replace("\\", "/")).parts)
    parts = [part for part in given if part not in ("/", "//", "..", ".")] or ["map"]
    clean = [re.sub(r"[^\w.\-]+", "_", part).lstrip(".")[:120] or "_" for part in parts]
    if clean != given:
        clean[-1] += "-" + hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return PurePosixPath(*clean)


def _aligned(what: str, values: Any, names: list[str], *, single: bool) -> list[Any]:
    if values is None:
        return [None] * len(names)
    listed = [values] if single else list(values)
    _same_count(what, listed, names)
    return listed


def _same_count(what: str, values: Sequence[Any], names: Sequence[str]) -> None:
    if len(values) != len(names):
        raise ValueError(f"{len(names)} names, but {len(values)} {what}; one for each is needed")
