"""Pictures of images and of heat maps: on their own, laid over each other, with contours."""

import math
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from dracones.report.picture import Picture

HEAT, SIGNED, SEQUENTIAL = "inferno", "RdBu_r", "viridis"
MASK_COLOUR, THRESHOLD_COLOUR = "#00E5C0", "#FFFFFF"
# Small images are drawn enlarged by a whole number, so that contours are lines and not pixels.
_SMALLEST, _LARGEST = 192, 512


def image_picture(image: ArrayLike, *, alt: str = "", largest: int = _LARGEST) -> Picture:
    """An image `[C, H, W]` or `[H, W]`, float in [0, 1] or uint8, with 1, 3 or 4 channels.

    Example:
        >>> image_picture(np.zeros((3, 8, 12))).width
        12
    """
    drawn = Image.fromarray(_pixels(image))
    return Picture.from_image(_at_most(drawn, largest), alt)


def map_picture(
    values: ArrayLike,
    *,
    low: float | None = None,
    high: float | None = None,
    kind: Literal["heat", "signed", "sequential"] = "heat",
    alt: str = "",
    largest: int = _LARGEST,
) -> Picture:
    """Numbers `[H, W]` as colours between `low` and `high` (of a signed map: symmetric about zero).

    A non-finite value is gray. The bounds used are in the picture's `numbers`: give them to compare maps.
    """
    array = _plane(values)
    low, high = _bounds(array, low, high, signed=kind == "signed")
    colours = _coloured(array, low, high, {"heat": HEAT, "signed": SIGNED, "sequential": SEQUENTIAL}[kind])
    return Picture.from_image(_at_most(Image.fromarray(colours), largest), alt, {"low": low, "high": high})


def heat_layer(
    values: ArrayLike, *, low: float | None = None, high: float | None = None, alt: str = "", largest: int = _LARGEST
) -> Picture:
    """A heat map `[H, W]` as colours to lay over its image: transparent at `low` and colder, opaque at `high`.

    Example:
        >>> layer = heat_layer(np.eye(2), low=0.0, high=1.0)
        >>> layer.width, layer.height
        (2, 2)
    """
    array = _plane(values)
    low, high = _bounds(array, low, high, signed=False)
    opacity = (255 * _share(array, low, high)).round().astype(np.uint8)
    colours = np.concatenate([_coloured(array, low, high, HEAT), opacity[..., None]], axis=2)
    return Picture.from_image(_at_most(Image.fromarray(colours, "RGBA"), largest), alt, {"low": low, "high": high})


def overlay(
    image: ArrayLike,
    heat: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    threshold: float | None = None,
    low: float | None = None,
    high: float | None = None,
    alt: str = "heat map over the image",
    smallest: int = _SMALLEST,
    largest: int = _LARGEST,
    legend: bool = False,
) -> Picture:
    """A heat map `[H, W]` over its image: the hotter, the less of the image shows through.

    Args:
        image: `[C, H, W]` or `[H, W]`, float in [0, 1] or uint8.
        heat: larger = more anomalous, at the image's own size.
        mask: what is known to be anomalous: its outline is drawn solid, in green-blue.
        threshold: drawn as a white contour of the map.
        low: score that is fully transparent; the map's median if not given.
        high: score that is fully coloured; the map's largest if not given. Give both to compare images.
        alt: what it shows.
        smallest: shorter side in pixels below which the picture is enlarged by a whole factor.
        largest: longer side in pixels above which it is reduced.
        legend: put the scale of the colours below: `low`, `high` and the threshold.

    Raises:
        ValueError: image, map and mask differ in size.
    """
    pixels, values = _pixels(image), _plane(heat)
    _same_size("heat map", values, pixels)
    low = float(np.median(values)) if low is None else low
    low, high = _bounds(values, low, high, signed=False)
    base = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels[..., :3]
    # The image fades to gray, so that every colour seen is heat.
    gray = base.mean(axis=2, keepdims=True, dtype=np.float32) * 0.85 + 20
    blended = _laid_over(gray, values, low, high)
    scale = max(1, math.ceil(smallest / min(values.shape)))
    drawn = Image.fromarray(blended.clip(0, 255).astype(np.uint8))
    drawn = _at_most(drawn.resize((drawn.width * scale, drawn.height * scale), Image.Resampling.NEAREST), largest)
    if threshold is not None:
        _contour(drawn, values, threshold, THRESHOLD_COLOUR)
    if mask is not None:
        outline = _plane(mask) > 0
        _same_size("mask", outline, pixels)
        _contour(drawn, outline.astype(float), 0.5, MASK_COLOUR)
    if legend:
        drawn = _with_legend(drawn, low, high, threshold)
    return Picture.from_image(drawn, alt, {"low": low, "high": high, "threshold": threshold})


def _laid_over(gray: NDArray[Any], values: NDArray[np.float64], low: float, high: float) -> NDArray[Any]:
    # In float32 and in place: an image of many megapixels is blended in few times its own memory.
    share = (0.75 * _share(values, low, high)).astype(np.float32)[..., None]
    blended = _coloured(values, low, high, HEAT)[..., :3].astype(np.float32)
    blended *= share
    blended += gray * (1 - share)
    return blended


def _with_legend(drawn: Image.Image, low: float, high: float, threshold: float | None) -> Image.Image:
    """The picture with a bar of its colours below, numbers under it, and a line where the threshold lies."""
    width, bar, text = drawn.width, 10, 14
    ramp = np.repeat(np.linspace(low, high, width)[None], bar, axis=0)
    colours = _laid_over(np.full((bar, width, 1), 128.0), ramp, low, high)
    whole = Image.new("RGB", (width, drawn.height + bar + text), "#FFFFFF")
    whole.paste(drawn, (0, 0))
    whole.paste(Image.fromarray(colours.clip(0, 255).astype(np.uint8)), (0, drawn.height))
    pen, below = ImageDraw.Draw(whole), drawn.height + bar
    pen.text((2, below), f"{low:.3g}", fill="#000000", anchor="la")
    pen.text((width - 2, below), f"{high:.3g}", fill="#000000", anchor="ra")
    if threshold is not None and low < threshold < high:
        at = round((threshold - low) / (high - low) * (width - 1))
        pen.line([(at, drawn.height), (at, below)], fill=THRESHOLD_COLOUR, width=2)
        pen.text((at, below), f"{threshold:.3g}", fill="#000000", anchor="ma")
    return whole


def _pixels(image: ArrayLike) -> NDArray[np.uint8]:
    array: NDArray[Any] = np.asarray(image)
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(f"expected an image [C, H, W] or [H, W]; got shape {array.shape}")
    if array.dtype != np.uint8:
        array = (np.nan_to_num(np.asarray(array, dtype=np.float64)).clip(0, 1) * 255).round().astype(np.uint8)
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 2:
        return array
    if array.shape[0] not in (3, 4):
        # More channels than a screen has: their mean.
        mean: NDArray[np.uint8] = array.mean(axis=0).round().astype(np.uint8)
        return mean
    return np.ascontiguousarray(array.transpose(1, 2, 0))


def _plane(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    array = array[0] if array.ndim == 3 and array.shape[0] == 1 else array
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"expected a map [H, W]; got shape {np.shape(values)}")
    return array


def _same_size(what: str, plane: NDArray[Any], pixels: NDArray[np.uint8]) -> None:
    if plane.shape != pixels.shape[:2]:
        raise ValueError(
            f"the {what} is {plane.shape[0]}x{plane.shape[1]} (height x width), "
            f"its image {pixels.shape[0]}x{pixels.shape[1]}; bring both to the same size first"
        )


def _bounds(values: NDArray[np.float64], low: float | None, high: float | None, *, signed: bool) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if signed:
        high = float(np.abs(finite).max(initial=0.0)) if high is None else high
        low = -high if low is None else low
    low = float(finite.min(initial=np.inf)) if low is None and len(finite) else 0.0 if low is None else float(low)
    high = float(finite.max(initial=-np.inf)) if high is None and len(finite) else 1.0 if high is None else float(high)
    return (low, high) if high > low else (low, low + 1.0)


def _share(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.clip((values - low) / (high - low), 0, 1))


def _coloured(values: NDArray[np.float64], low: float, high: float, name: str) -> NDArray[np.uint8]:
    colours = mpl.colormaps[name](_share(values, low, high), bytes=True)
    colours[~np.isfinite(values)] = (128, 128, 128, 255)
    return np.asarray(colours[..., :3], dtype=np.uint8)


def _at_most(image: Image.Image, largest: int) -> Image.Image:
    scale = largest / max(image.size)
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _contour(drawn: Image.Image, values: NDArray[np.float64], level: float, colour: str) -> None:
    from contourpy import contour_generator

    # A frame of the lowest value closes outlines that touch the border; what was not looked at is as cold.
    coldest = float(np.nanmin(values, initial=level))
    framed = np.pad(np.nan_to_num(values, nan=coldest), 1, constant_values=coldest)
    scale_x, scale_y = drawn.width / values.shape[1], drawn.height / values.shape[0]
    pen = ImageDraw.Draw(drawn)
    # A dark rim keeps the line visible on bright colours.
    lines = contour_generator(z=framed).lines(level)
    for width, ink in ((4, "#000000"), (2, colour)):
        for line in lines:
            points = [((x - 0.5) * scale_x, (y - 0.5) * scale_y) for x, y in np.asarray(line)]
            pen.line(points, fill=ink, width=width, joint="curve")
