"""A detector's region of interest, met by images that may bring one."""

from collections.abc import Iterable
from typing import Any

from dracones.images import ImageCollection, Interest, InterestSource, restricted, within


def interest_of(images: ImageCollection) -> Interest | None:
    """The region that images were opened with."""
    return images.source.interest if isinstance(images.source, InterestSource) else None


def within_as(interest: Interest | None, images: ImageCollection, roi: Any) -> ImageCollection:
    """Images within a region of their own, filled as those of the fit were.

    Raises:
        ValueError: the fit knew no region.
    """
    if interest is None:
        raise ValueError("this detector was fitted on whole images; fit it with a region of interest (roi) to use one")
    return within(images, roi, interest.fill)


def restricted_as(interest: Interest | None, images: ImageCollection) -> ImageCollection:
    """Images within a detector's region.

    Raises:
        ValueError: they are of another region, or each was to bring one.
    """
    own = interest_of(images)
    if own is not None:
        if interest is None or not own.is_of(interest):
            raise ValueError(
                f"{images.name_of_source} was opened with a region of interest that is not this detector's; scores "
                "would be of something else: leave it out, or fit with it"
            )
        return images
    return images if interest is None else restricted(images, interest)


def within_regions_of(images: ImageCollection, made: ImageCollection, places: Iterable[int]) -> ImageCollection:
    """Images made of others, within the regions of those: ``places[i]`` is where the one is of which ``i`` was made.

    Where one region holds for all, nothing is to be done.
    """
    source = images.source
    if not isinstance(source, InterestSource) or source.paths_of_regions is None:
        return made
    paths = [source.paths_of_regions[int(images.places[place])] for place in places]
    return made.from_source(InterestSource(made.source, source.interest, paths))
