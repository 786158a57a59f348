"""`--roi` of the verbs: one region for all images, or a folder with one for each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dracones.cli.models import is_exported


def within(model: Path, detector: Any, images: Any, roi: Path | None) -> Any:
    """The images within a region; as they are where none is named.

    Raises:
        ValueError: a region that is not the model's, or a model that knows none.
    """
    if roi is None:
        return images
    if is_exported(model):
        raise ValueError(f"{model} is an exported file, and those know no region of interest; leave out --roi")
    return detector.open(images, roi=roi)


def regions_for(roi: Path | None, sets: Mapping[str, Any]) -> dict[str, Path | None]:
    """Where the regions of each of several sets are: in ROI/SET where there are such folders, else all in ROI.

    Args:
        roi: what `--roi` names.
        sets: images by the word that their folder would have.

    Raises:
        ValueError: images of two sets are called alike, and nothing tells their regions apart.
    """
    if roi is None or not roi.is_dir():
        return dict.fromkeys(sets, roi)
    if all((roi / word).is_dir() for word in sets):
        return {word: roi / word for word in sets}
    met: dict[str, str] = {}
    for word, images in sets.items():
        for name in images.names:
            if met.setdefault(name, word) != word:
                raise ValueError(
                    f"{name} is an image of both {met[name]} and {word}, so {roi} does not tell which region is whose; "
                    f"put them in {' and '.join(str(roi / each) for each in sets)}"
                )
    return dict.fromkeys(sets, roi)
