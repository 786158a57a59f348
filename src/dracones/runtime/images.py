"""Images for an exported file: found and decoded as everywhere, kept as the arrays that they are."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dracones.images.folder import Pages, every_page
from dracones.images.formats.arrays import array_source
from dracones.images.limits import Limits, UnreadableImage
from dracones.images.listing import ImageListing
from dracones.images.masks import with_masks
from dracones.images.paths import listed_source, path_source


class LineImages(ImageListing):
    """An ordered set of images, read one at a time as the arrays that they are; see `ImageListing`."""

    preprocess = None

    def read_native(self, index: int) -> NDArray[Any]:
        """``[C, H, W]`` as stored.

        Raises:
            UnreadableImage: it cannot be decoded.
        """
        return np.ascontiguousarray(self.source.read(self._at(index)).transpose(2, 0, 1))

    def read(self, index: int) -> NDArray[np.float32]:
        """``[C, H, W]`` float32 in [0, 1]."""
        image = self.read_native(index)
        top = {"uint8": 255, "uint16": 65535}.get(str(image.dtype), 1)
        return image.astype(np.float32) / np.float32(top)

    def mask(self, index: int) -> NDArray[np.bool_] | None:
        """``[H, W]``, true where anomalous; ``None`` where no masks are known.

        Raises:
            ValueError: the mask is missing, unreadable, or of another size than its image.
        """
        return self.source.mask(self._at(index)) if self._looks_at_masks else None

    def with_preprocess(self, preprocess: None) -> "LineImages":  # noqa: ARG002 (the collections' word for it)
        """The images themselves: nothing is done to them outside the graph."""
        return self


def open_line_images(
    source: Any,
    *,
    strict: bool = False,
    limits: Limits | None = None,
    pages: Pages = "first",
    masks: str | Path | None = None,
) -> Any:
    """A folder, file, pattern, list of files or array as `LineImages`; a collection is taken as it is.

    Args:
        source: where the images are.
        strict: raise at the first image that cannot be read.
        limits: what one image may cost.
        pages: of files with several pages the first, or all as images of their own.
        masks: folder of the masks, named like their images.

    Raises:
        FileNotFoundError: no such path.
        ValueError: no images there.
        TypeError: nothing that images can be read from.
    """
    limits = limits or Limits()
    if isinstance(source, ImageListing):
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
    if pages == "all":
        found = every_page(found)
    if masks is not None:
        found = with_masks(found, masks, None)
    return LineImages(found, skipped=skipped, strict=strict)
