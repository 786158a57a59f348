"""Images in: folders, archives, arrays, datasets and built-in photographs, read safely and treated alike."""

from dracones.images.builtin.defects import DEFECT_KINDS, Defect, DefectKind, with_defect
from dracones.images.builtin.photographs import builtin_photograph, builtin_photographs, crops, halves
from dracones.images.builtin.scenes import Cutout, Scenes, blob_cutouts, coin_cutouts, compose_scenes
from dracones.images.collection import ImageCollection
from dracones.images.dataset import Batch, ImageDataset
from dracones.images.folder import HEAT_SUFFIX
from dracones.images.formats.mvtec import MvtecLayout
from dracones.images.groups import equal_groups, similar_groups
from dracones.images.limits import Limits, Skipped, UnreadableImage
from dracones.images.opening import open_images
from dracones.images.pixels import as_float, levels_of
from dracones.images.prefetch import reading_threads
from dracones.images.preprocess import Preprocess
from dracones.images.sources import ImageSource
from dracones.images.tile_source import tiles_of
from dracones.images.tiles import Tiling

__all__ = [
    "DEFECT_KINDS",
    "HEAT_SUFFIX",
    "Batch",
    "Cutout",
    "Defect",
    "DefectKind",
    "ImageCollection",
    "ImageDataset",
    "ImageSource",
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
    "equal_groups",
    "halves",
    "levels_of",
    "open_images",
    "reading_threads",
    "similar_groups",
    "tiles_of",
    "with_defect",
]
