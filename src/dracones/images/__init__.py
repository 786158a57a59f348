"""Images in: folders, archives, arrays, datasets and built-in photographs, read safely and treated alike."""

from typing import TYPE_CHECKING

from dracones.lazy import lazily

if TYPE_CHECKING:
    from dracones.images.builtin.defects import (
        DEFECT_KINDS as DEFECT_KINDS,
    )
    from dracones.images.builtin.defects import (
        Defect as Defect,
    )
    from dracones.images.builtin.defects import (
        DefectKind as DefectKind,
    )
    from dracones.images.builtin.defects import (
        with_defect as with_defect,
    )
    from dracones.images.builtin.photographs import (
        builtin_photograph as builtin_photograph,
    )
    from dracones.images.builtin.photographs import (
        builtin_photographs as builtin_photographs,
    )
    from dracones.images.builtin.photographs import (
        crops as crops,
    )
    from dracones.images.builtin.photographs import (
        halves as halves,
    )
    from dracones.images.builtin.scenes import (
        Cutout as Cutout,
    )
    from dracones.images.builtin.scenes import (
        Scenes as Scenes,
    )
    from dracones.images.builtin.scenes import (
        blob_cutouts as blob_cutouts,
    )
    from dracones.images.builtin.scenes import (
        coin_cutouts as coin_cutouts,
    )
    from dracones.images.builtin.scenes import (
        compose_scenes as compose_scenes,
    )
    from dracones.images.collection import ImageCollection as ImageCollection
    from dracones.images.dataset import Batch as Batch
    from dracones.images.dataset import Block as Block
    from dracones.images.dataset import ImageDataset as ImageDataset
    from dracones.images.folder import HEAT_SUFFIX as HEAT_SUFFIX
    from dracones.images.formats.mvtec import MvtecLayout as MvtecLayout
    from dracones.images.groups import similar_groups as similar_groups
    from dracones.images.interest import Interest as Interest
    from dracones.images.interest import InterestSource as InterestSource
    from dracones.images.interest import restricted as restricted
    from dracones.images.interest import within as within
    from dracones.images.limits import Limits as Limits
    from dracones.images.limits import Skipped as Skipped
    from dracones.images.limits import UnreadableImage as UnreadableImage
    from dracones.images.listing import ImageListing as ImageListing
    from dracones.images.opening import open_images as open_images
    from dracones.images.pixels import as_float as as_float
    from dracones.images.pixels import levels_of as levels_of
    from dracones.images.prefetch import reading_threads as reading_threads
    from dracones.images.preprocess import Preprocess as Preprocess
    from dracones.images.sources import ImageSource as ImageSource
    from dracones.images.tile_source import tiles_of as tiles_of
    from dracones.images.tiles import Tiling as Tiling

__all__ = [
    "DEFECT_KINDS",
    "HEAT_SUFFIX",
    "Batch",
    "Block",
    "Cutout",
    "Defect",
    "DefectKind",
    "ImageCollection",
    "ImageDataset",
    "ImageListing",
    "ImageSource",
    "Interest",
    "InterestSource",
    "Limits",
    "MvtecLayout",
    "Preprocess",
    "Scenes",
    "Skipped",
    "Tiling",
    "UnreadableImage",
    "as_float",
    "blob_cutouts",
    "builtin_photograph",
    "builtin_photographs",
    "coin_cutouts",
    "compose_scenes",
    "crops",
    "halves",
    "levels_of",
    "open_images",
    "reading_threads",
    "restricted",
    "similar_groups",
    "tiles_of",
    "with_defect",
    "within",
]

_HOMES = {
    "Batch": "dataset",
    "Block": "dataset",
    "Cutout": "builtin.scenes",
    "DEFECT_KINDS": "builtin.defects",
    "Defect": "builtin.defects",
    "DefectKind": "builtin.defects",
    "HEAT_SUFFIX": "folder",
    "ImageCollection": "collection",
    "ImageDataset": "dataset",
    "ImageListing": "listing",
    "ImageSource": "sources",
    "Interest": "interest",
    "InterestSource": "interest",
    "Limits": "limits",
    "MvtecLayout": "formats.mvtec",
    "Preprocess": "preprocess",
    "Scenes": "builtin.scenes",
    "Skipped": "limits",
    "Tiling": "tiles",
    "UnreadableImage": "limits",
    "as_float": "pixels",
    "blob_cutouts": "builtin.scenes",
    "builtin_photograph": "builtin.photographs",
    "builtin_photographs": "builtin.photographs",
    "coin_cutouts": "builtin.scenes",
    "compose_scenes": "builtin.scenes",
    "crops": "builtin.photographs",
    "halves": "builtin.photographs",
    "levels_of": "pixels",
    "open_images": "opening",
    "reading_threads": "prefetch",
    "similar_groups": "groups",
    "tiles_of": "tile_source",
    "restricted": "interest",
    "with_defect": "builtin.defects",
    "within": "interest",
}
# Some of these load torch, and what only reads files must not.
__getattr__ = lazily(__name__, _HOMES)
