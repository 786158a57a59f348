"""Decoded images through a detector: one verdict or reason an image, whatever the others are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from dracones.calibration import Verdict
from dracones.images.digests import digest_of_array
from dracones.images.limits import UnreadableImage
from dracones.images.sources import ImageSource
from dracones.runtime import ExportedDetector, LineImages


class DecodedImages(ImageSource):
    """Images in memory, ``[H, W, C]`` each, of any sizes; named by their place."""

    name = "request"

    def __init__(self, images: Sequence[NDArray[Any]]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    @override
    def item_name(self, index: int) -> str:
        return f"image {index}"

    @override
    def read(self, index: int) -> NDArray[Any]:
        return self.images[index]

    @override
    def digest(self, index: int) -> bytes:
        return digest_of_array(self.images[index])


def judge(
    detector: Any, images: Sequence[NDArray[Any]], maps: bool, groups: Sequence[str | None] | None = None
) -> list[Verdict | Exception]:
    """A verdict for each image, or what stood against it: one that does not fit leaves the others alone.

    Args:
        detector: `Detector` or `ExportedDetector`.
        images: ``[H, W, C]`` as decoded.
        maps: whether heat maps are wanted.
        groups: each image's, where the calibration has groups.
    """
    opened = _opened(detector, images)
    found: dict[str, Verdict] = {}
    failure: Exception | None = None
    grouped = {} if groups is None else {"groups": groups}  # an exported file knows none
    try:
        for verdict in detector.iterate(opened, batch_size=len(images), maps=maps and detector.gives_maps, **grouped):
            found[verdict.path] = verdict
    except Exception as error:  # a batch of several is taken apart; alone, the image is to blame
        failure = error
    reasons = {item.name: UnreadableImage(item.name, item.reason) for item in opened.skipped}
    if failure is not None and len(images) > 1:
        return [
            judge(detector, [image], maps, None if groups is None else [groups[i]])[0] for i, image in enumerate(images)
        ]
    names = [opened.name(i) for i in range(len(images))]
    return [found.get(name) or reasons.get(name) or failure or _unanswered(name) for name in names]


def _opened(detector: Any, images: Sequence[NDArray[Any]]) -> Any:
    source = DecodedImages(images)
    if isinstance(detector, ExportedDetector):
        return LineImages(source)
    from dracones.images import open_images

    return open_images(source)


def _unanswered(name: str) -> Exception:
    return RuntimeError(f"{name}: the model gave no answer")


def trial_image(detector: Any) -> NDArray[np.uint8]:
    """An image that the detector takes, ``[H, W, C]``: a slope, as nothing is known of what belongs."""
    if isinstance(detector, ExportedDetector):
        wanted = detector.facts["input"]
        channels, (height, width) = wanted["channels"], wanted["size"] or (64, 64)
    else:
        channels, height, width = detector.image_shape
    slope = np.linspace(0, 255, height * width).reshape(height, width, 1)
    return np.repeat(slope, channels, axis=2).astype(np.uint8)
