"""What one image may cost to read, and what is said of one that cannot be read."""

from collections.abc import Iterable
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from dracones.images.names import plain_text


class Limits(BaseModel):
    """Bounds that are checked from a file's size and header, before anything is decoded.

    Example:
        >>> Limits(max_pixels=10_000).max_pixels
        10000
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_pixels: int = Field(default=2**27, gt=0, description="height x width of one image; 2**27 is 11,585 squared")
    max_file_bytes: int = Field(default=2**30, gt=0, description="size of one image file")
    max_decode_bytes: int = Field(
        default=2**32, gt=0, description="memory that all images being decoded at one time may take together"
    )
    max_array_bytes: int = Field(default=2**34, gt=0, description="size of one array read into memory from an archive")

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
