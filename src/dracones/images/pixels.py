"""Arrays of pixels `[H, W, C]`: what is transparent, what is turned, what has no known scale."""

from typing import TYPE_CHECKING

import numpy as np

from dracones.images.limits import UnreadableImage

if TYPE_CHECKING:
    from torch import Tensor


def on_white(image: np.ndarray) -> np.ndarray:
    """`[H, W, C + alpha]` of uint8 or uint16, laid on white: `[H, W, C]` of the same type."""
    colour, alpha = image[:, :, :-1], image[:, :, -1:]
    top = np.iinfo(image.dtype).max
    if (alpha == top).all():
        return np.ascontiguousarray(colour)
    share = alpha.astype(np.float32) / top
    return np.rint(colour * share + top * (1 - share)).astype(image.dtype)


def checked_float(image: np.ndarray, name: str) -> np.ndarray:
    """The image as float32, refused where its values are not finite or leave [0, 1]."""
    image = image.astype(np.float32)
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 1):
        raise UnreadableImage(
            name,
            f"float pixels from {low:g} to {high:g} where [0, 1] is expected; scale the image or save 8 or 16 bits",
        )
    return image


def oriented(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo what EXIF's orientation says: flips, half and quarter turns (EXIF 2.32, tag 0x0112)."""
    turns = {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
        7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda a: a.transpose(1, 0, 2)[::-1],
    }
    turn = turns.get(orientation)
    return image if turn is None else np.ascontiguousarray(turn(image))


def as_float(images: "Tensor") -> "Tensor":
    """float32 in [0, 1] from the native type: uint8, uint16, or float already."""
    levels = levels_of(images)
    return images.float() if levels is None else images.float().div_(levels - 1)


def levels_of(images: "Tensor") -> int | None:
    """How many levels the native type has: 256, 65,536, or none for floats."""
    return {"torch.uint8": 256, "torch.uint16": 65536}.get(str(images.dtype))
