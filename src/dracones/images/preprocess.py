"""One treatment for every image of a comparison: channels, size, crop.

Resizing one side of an in/out pair and not the other leaves a trace that a density finds at once,
and so fakes a high AUROC. Therefore a `Preprocess` is fixed once, saved with the model, and refuses
what it was not told how to treat.
"""

import warnings
from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor

from dracones.images.resize import enlarge, resize, resize_levels

Size = tuple[int, int]
# ITU-R BT.601, the weights of every image library's gray.
_LUMA = (0.299, 0.587, 0.114)
_WHOLE_LUMA = (19595.0, 38470.0, 7471.0)  # the same in 65,536ths, as Pillow has them
_SAMPLE = 64


class Sampled(Protocol):
    """What a treatment is inferred from: the shapes of some of a collection's images."""

    @property
    def name_of_source(self) -> str:
        """Where the images come from."""
        ...

    def sample_shapes(self, count: int, /) -> dict[str, tuple[int, int, int]]:
        """`[C, H, W]` of up to so many of the images, by name."""
        ...

    def skipped_summary(self) -> str:
        """What could not be read, in words."""
        ...


class Preprocess(BaseModel):
    """What is done to every image: channels first, then resizing to `size`, then a centre `crop`.

    With `size=None` nothing is resized. `native_size` and `native_channels`, which `infer` fills in, say what an
    image must then have; one that differs is refused and never quietly resized. An image of 256 (or 65,536) levels
    keeps its levels: values are rounded to them after resizing, as image libraries do, so a density of 8-bit images
    always sees 8-bit images.

    Example:
        >>> prepare = Preprocess(size=(8, 8), channels=1)
        >>> prepare(torch.rand(2, 3, 16, 12)).shape
        torch.Size([2, 1, 8, 8])
        >>> Preprocess.model_validate_json(prepare.model_dump_json()) == prepare
        True
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Size | None = Field(
        default=None, description="(height, width) that every image is resized to; None: no resizing"
    )
    channels: int | None = Field(
        default=None, ge=1, description="1: gray, 3: RGB, converted where needed; None: as they are"
    )
    fit: Literal["stretch", "cover", "contain"] = Field(
        default="stretch",
        description="how another shape meets `size`: stretched; covering it, rest cut off; contained, edges repeated",
    )
    crop: Size | None = Field(default=None, description="(height, width) cut from the centre after resizing")
    interpolation: Literal["bilinear", "bicubic", "nearest"] = Field(
        default="bilinear", description="resizing filter; the first two are antialiased when they shrink"
    )
    native_size: Size | None = Field(
        default=None, description="(height, width) an image must have where no size is named"
    )
    native_channels: int | None = Field(
        default=None, ge=1, description="channels an image must have where none are named"
    )

    @field_validator("size", "crop", "native_size", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for what in ("size", "crop", "native_size"):
            pair = getattr(self, what)
            if pair is not None and min(pair) < 1:
                raise ValueError(f"{what}={pair}: height and width are at least 1")
        within = self.size or self.native_size
        if self.crop and within and (self.crop[0] > within[0] or self.crop[1] > within[1]):
            raise ValueError(f"crop={self.crop} is larger than the image of {within} that it is cut from")
        return self

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """`(C, H, W)` of what comes out, or None where it depends on the image."""
        size, channels = self.crop or self.size or self.native_size, self.channels or self.native_channels
        return None if size is None or channels is None else (channels, *size)

    @property
    def changes_nothing(self) -> bool:
        """Whether images pass as they are (or are refused)."""
        return self.size is None and self.crop is None and self.channels is None

    def __call__(self, images: Tensor, levels: int | None = None) -> Tensor:
        """Images `[B, C, H, W]` or `[C, H, W]`, float32 in [0, 1], treated; of `levels` steps where that is given.

        Raises:
            ValueError: the images' size or channels are not what is expected and no conversion was named.
        """
        if images.ndim == 3:
            return self(images[None], levels)[0]
        self.check(images.shape[1], images.shape[2], images.shape[3])
        return self.treat(self._of_native_depth(images), levels)

    def _of_native_depth(self, images: Tensor) -> Tensor:
        """Gray as RGB of equal channels and back, which loses nothing; colours are never dropped unasked."""
        expected = self.native_channels if self.channels is None else None
        if expected in (None, images.shape[1]):
            return images
        if images.shape[1] == 1:
            return images.repeat(1, 3, 1, 1)
        if bool((images == images[:, :1]).all()):
            return images[:, :1]
        raise ValueError(
            "3 channels where 1 are expected and no conversion is named, and they differ; name channels=1 for every "
            "side of the comparison to convert"
        )

    def treat(self, images: Tensor, levels: int | None = None) -> Tensor:
        """`[B, C, H, W]` treated, as a graph of tensors: what `__call__` does after its checks.

        Images of 256 levels are treated in whole numbers, so that they come out the same to the last bit wherever the
        graph runs; see `resize`.
        """
        channels = self.channels or images.shape[1]
        if levels == 256 and not self.changes_nothing:
            images = self._shaped((images * 255).round(), channels, _gray_levels, resize_levels) / 255
        else:
            images = self._shaped(images, channels, _gray, _resized)
            if levels is not None and not self.changes_nothing:
                images = (images * (levels - 1)).round() / (levels - 1)
        images = images if self.crop is None else _centre(images, self.crop)
        # Gray becomes RGB last: one channel is resized, not three alike.
        return images if channels == images.shape[1] else images.repeat(1, channels, 1, 1)

    def _shaped(
        self, images: Tensor, channels: int, gray: Callable[[Tensor], Tensor], resized: Callable[..., Tensor]
    ) -> Tensor:
        if channels < images.shape[1]:
            images = gray(images)
        return (
            images if self.size is None else resized(images, self.size, fit=self.fit, interpolation=self.interpolation)
        )

    def mask(self, mask: Tensor) -> Tensor:
        """A boolean mask `[H, W]` through the same geometry as its image (nearest neighbour)."""
        moved = mask[None, None].float()
        if self.size is not None and tuple(mask.shape) != self.size:
            moved = resize(moved, self.size, fit=self.fit, interpolation="nearest")
        return (moved if self.crop is None else _centre(moved, self.crop))[0, 0] > 0.5

    def restore(self, maps: Tensor, native_size: Size) -> Tensor:
        """Maps `[B, h, w]` of treated images, laid back over the images' own `[B, H, W]`, bilinear.

        What the treatment cut off was never looked at and is NaN.
        """
        return enlarge(maps, native_size, self.size, fit=self.fit, crop=self.crop)

    def check(self, channels: int, height: int, width: int) -> None:
        """Refuse an image whose size or channels would need a conversion that nobody named."""
        if (
            self.channels is not None
            and channels != self.channels
            and (channels, self.channels) not in ((1, 3), (3, 1))
        ):
            raise ValueError(
                f"an image of {channels} channels cannot become one of {self.channels}: "
                "only gray to RGB and back are known; name channels=None or convert the files"
            )
        convertible = (channels, self.native_channels) in ((1, 3), (3, 1))
        if self.channels is None and self.native_channels not in (None, channels) and not convertible:
            raise ValueError(
                f"{channels} channels where {self.native_channels} are expected and no conversion is named; "
                f"name channels={self.native_channels} for every side of the comparison to convert"
            )
        if self.size is None and self.native_size not in (None, (height, width)):
            raise ValueError(
                f"{height}x{width} pixels where {_words(self.native_size)} are expected and no common resizing "
                f"is named; name size={self.native_size} (or another) for every side of the comparison"
            )
        if self.size is None and self.crop is not None and (self.crop[0] > height or self.crop[1] > width):
            raise ValueError(
                f"{height}x{width} pixels are fewer than the crop of {_words(self.crop)}; name a size to resize to"
            )

    @classmethod
    def infer(
        cls, images: Sampled, size: Size | int | None = None, channels: int | None = None, **options: Any
    ) -> Self:
        """The treatment that suits a collection, from the headers of up to 64 of its images, spread evenly.

        Raises:
            ValueError: sizes or channels differ among the images and no common one is named; no image can be read.
        """
        found = images.sample_shapes(_SAMPLE)
        if not found:
            raise ValueError(f"no image of {images.name_of_source} can be read: {images.skipped_summary()}")
        sizes: dict[Size, str] = {}
        depths: dict[int, str] = {}
        for name, (depth, height, width) in found.items():
            sizes.setdefault((height, width), name)
            depths.setdefault(depth, name)
        if size is None and len(sizes) > 1:
            raise ValueError(
                f"the images of {images.name_of_source} differ in size: {_examples(sizes, _words)}; "
                f"name a common one, e.g. size={min(sizes)}"
            )
        if channels is None and set(depths) == {1, 3}:
            channels = 3
            warnings.warn(
                f"the images of {images.name_of_source} have 1 and 3 channels ({_examples(depths, str)}): all are read "
                "as RGB (channels=3), gray ones with three equal channels; name channels=1 for gray",
                UserWarning,
                stacklevel=2,
            )
        if channels is None and len(depths) > 1:
            raise ValueError(
                f"the images of {images.name_of_source} differ in channels: {_examples(depths, str)}; "
                "name channels=1 (gray) or channels=3 (RGB)"
            )
        return cls(
            size=(size, size) if isinstance(size, int) else size,
            channels=channels,
            native_size=None if size is not None else next(iter(sizes)),
            native_channels=None if channels is not None else next(iter(depths)),
            **options,
        )


def _gray(images: Tensor) -> Tensor:
    weights = torch.tensor(_LUMA, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def _resized(images: Tensor, size: Size, **how: Any) -> Tensor:
    # Bicubic weights overshoot, and sums of the others may miss 1 by a rounding.
    return resize(images, size, **how).clamp(0, 1)


def _gray_levels(levels: Tensor) -> Tensor:
    """Gray of whole numbers from 0 to 255, in whole numbers: no sum leaves the 24 bits of float32."""
    weights = torch.tensor(_WHOLE_LUMA, dtype=levels.dtype, device=levels.device).view(1, 3, 1, 1)
    return ((levels * weights).sum(1, keepdim=True) / 65536).round()


def _centre(images: Tensor, crop: Size) -> Tensor:
    top, left = (images.shape[-2] - crop[0]) // 2, (images.shape[-1] - crop[1]) // 2
    return images[..., top : top + crop[0], left : left + crop[1]]


def _words(size: Any) -> str:
    return "x".join(str(n) for n in size)


def _examples(found: dict[Any, str], words: Any) -> str:
    shown: Iterable[tuple[Any, str]] = list(found.items())[:3]
    return ", ".join(f"{words(what)} ({name})" for what, name in shown) + (", ..." if len(found) > 3 else "")
