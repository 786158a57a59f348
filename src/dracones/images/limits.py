"""What one image may cost to read, and what is said of one that cannot be read."""

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import NamedTuple

from dracones.images.names import plain_text


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds that are checked from a file's size and header, before anything is decoded.

    Attributes:
        max_pixels: height x width of one image; 2**27 is 11,585 squared.
        max_file_bytes: size of one image file.
        max_decode_bytes: memory that all images being decoded at one time may take together.
        max_array_bytes: size of one array read into memory from an archive.

    Example:
        >>> Limits(max_pixels=10_000).max_pixels
        10000
    """

    max_pixels: int = 2**27
    max_file_bytes: int = 2**30
    max_decode_bytes: int = 2**32
    max_array_bytes: int = 2**34

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, Integral) or isinstance(value, bool) or value <= 0:
                raise ValueError(f"Limits: {name} is a whole number above 0; got {value!r}")

    def check_pixels(self, name: str, height: int, width: int, channels: int = 1) -> None:
        """Refuse an image by the size its header states, so that a decompression bomb is never decoded.

        Every four channels beyond the first four count as an image of their own.
        """
        if height <= 0 or width <= 0:
            raise UnreadableImage(name, f"its header states a size of {height}x{width} pixels")
        count = height * width * -(-channels // 4)
        if count > self.max_pixels:
            shape = f"{height}x{width}" + (f" by {channels} channels" if channels > 4 else "")
            raise UnreadableImage(
                name,
                f"its header states {shape} = {count:,} pixels, more than the limit of "
                f"{self.max_pixels:,}; raise Limits(max_pixels=...) if the image is meant to be that large",
            )


class UnreadableImage(ValueError):  # noqa: N818 (named for the image, as the reports name it)
    """One image cannot be had: `name` says which, `reason` says why, in words for a report.

    Example:
        >>> str(UnreadableImage("a/b.png", "the file is empty"))
        'a/b.png: the file is empty'
    """

    def __init__(self, name: str, reason: str) -> None:
        # What decoders say may hold anything, at any length.
        super().__init__(name, plain_text(reason))
        self.name = name
        self.reason = plain_text(reason)

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class Skipped(NamedTuple):
    """A file or item that was passed over, and why.

    Attributes:
        name: as in reports.
        reason: in words.
        is_image: whether it should have been read: false for other files that lie among the images.
    """

    name: str
    reason: str
    is_image: bool = True


def reasons(skipped: Iterable[Skipped], most: int = 3) -> str:
    """The first image of each of a few reasons, in words.

    >>> reasons([Skipped("a.png", "empty"), Skipped("b.png", "empty"), Skipped("c.png", "truncated")])
    'a.png: empty; c.png: truncated'
    """
    first: dict[str, str] = {}
    for item in skipped:
        if item.is_image:
            first.setdefault(item.reason, item.name)
    return "; ".join(f"{name}: {reason}" for reason, name in list(first.items())[:most])
