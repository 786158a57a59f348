"""Images in: folders, archives, arrays, datasets and built-in photographs, read safely and treated alike."""

from .collection import Batch, ImageCollection
from .dataset import ImageDataset
from .limits import Limits, Skipped, UnreadableImage
from .mvtec import MvtecLayout
from .opening import open_images
from .photographs import builtin_photograph, builtin_photographs, crops, halves
from .preprocess import Preprocess, same_preprocess
from .scenes import Cutout, Scenes, blob_cutouts, coin_cutouts, compose_scenes
from .sources import ImageSource
from .tile_source import tiles_of
from .tiles import Tiling

__all__ = [
    "Batch",
    "Cutout",
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
    "blob_cutouts",
    "builtin_photograph",
    "builtin_photographs",
    "coin_cutouts",
    "compose_scenes",
    "crops",
    "halves",
    "open_images",
    "same_preprocess",
    "tiles_of",
]
