"""Images for an exported file: found and decoded as everywhere, kept as the arrays that they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dracones.images.folder import Pages, every_page
from dracones.images.formats.arrays import array_source
from dracones.images.limits import Limits, Skipped, UnreadableImage
from dracones.images.paths import listed_source, path_source
from dracones.images.sources import ImageSource


class LineImages:
    """An ordered set of images by name, read one at a time; what cannot be read is set aside with its reason."""

    preprocess = None

    def __init__(self, source: ImageSource, skipped: Sequence[Skipped] = (), *, strict: bool = False) -> None:
        self.source = source
        self.strict = strict
        self._skipped = {item.name: item for item in skipped}

    def __len__(self) -> int:
        return len(self.source)

    @property
    def names(self) -> list[str]:
        """The name of every image, in order."""
        return [self.source.item_name(i) for i in range(len(self))]

    @property
    def skipped(self) -> list[Skipped]:
        """What was passed over so far, with reasons."""
        return list(self._skipped.values())

    @property
    def notes(self) -> list[str]:
        """What should be known of how the images were read so far, in words."""
        return self.source.notes()

    def name(self, index: int) -> str:
        """The image's name."""
        return self.source.item_name(index)

    def names_digest(self) -> str:
        """A hash of all names in their order."""
        return self.source.names_digest()

    def skip(self, error: UnreadableImage) -> None:
        """Record an image that could not be read, or raise where the set is strict."""
        if self.strict:
            raise error
        self._skipped[error.name] = Skipped(error.name, error.reason)

    def read_native(self, index: int) -> NDArray[Any]:
        """``[C, H, W]`` as stored."""
        return np.ascontiguousarray(self.source.read(index).transpose(2, 0, 1))

    def read(self, index: int) -> NDArray[np.float32]:
        """``[C, H, W]`` float32 in [0, 1]."""
        image = self.read_native(index)
        top = {"uint8": 255, "uint16": 65535}.get(str(image.dtype), 1)
        return image.astype(np.float32) / np.float32(top)

    def with_preprocess(self, preprocess: None) -> "LineImages":  # noqa: ARG002 (the collections' word for it)
        """The images themselves: nothing is done to them outside the graph."""
        return self


def open_line_images(source: Any, *, strict: bool = False, limits: Limits | None = None, pages: Pages = "first") -> Any:
    """A folder, file, pattern, list of files or array as `LineImages`; a collection is taken as it is.

    Raises:
        FileNotFoundError: no such path.
        ValueError: no images there.
        TypeError: nothing that images can be read from.
    """
    limits = limits or Limits()
    if hasattr(source, "read_native"):
        return source
    if isinstance(source, str | Path):
        found, skipped = path_source(str(source), limits, None)
    elif isinstance(source, np.ndarray):
        found, skipped = array_source(source, "ndarray"), []
    elif isinstance(source, list | tuple) and source and all(isinstance(item, str | Path) for item in source):
        found, skipped = listed_source([Path(item) for item in source], limits), []
    else:
        raise TypeError(
            f"images cannot be opened from a {type(source).__name__}; give a path, a list of paths, or an array"
        )
    unread = next((item for item in skipped if item.is_image), None)
    if strict and unread is not None:
        raise UnreadableImage(unread.name, unread.reason)
    return LineImages(every_page(found) if pages == "all" else found, skipped, strict=strict)
