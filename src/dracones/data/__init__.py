"""Images in: folders, archives, arrays, datasets and built-in photographs, read safely and treated alike."""

from .collection import Batch, ImageCollection
from .dataset import ImageDataset
from .limits import Limits, Skipped, UnreadableImage
from .opening import open_images
from .photographs import builtin_photograph, builtin_photographs, crops, halves
from .preprocess import Preprocess, same_preprocess

__all__ = [
    "Batch",
    "ImageCollection",
    "ImageDataset",
    "Limits",
    "Preprocess",
    "Skipped",
    "UnreadableImage",
    "builtin_photograph",
    "builtin_photographs",
    "crops",
    "halves",
    "open_images",
    "same_preprocess",
]
