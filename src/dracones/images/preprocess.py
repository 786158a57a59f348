"""One treatment for every image of a comparison: channels, size, crop.

Resizing one side of an in/out pair and not the other leaves a trace that a density finds at once,
and so fakes a high AUROC. Therefore a `Preprocess` is fixed once, saved with the model, and refuses
what it was not told how to treat.
"""

from collections.abc import Iterable
from typing import Any, Literal, Protocol, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor
from torch.nn import functional

Size = tuple[int, int]
# ITU-R BT.601, the weights of every image library's gray.
_LUMA = (0.299, 0.587, 0.114)
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
        return self.treat(images, levels)

    def treat(self, images: Tensor, levels: int | None = None) -> Tensor:
        """`[B, C, H, W]` treated, as a graph of tensors: what `__call__` does after its checks."""
        channels = self.channels or images.shape[1]
        if channels < images.shape[1]:
            images = _gray(images)
        if self.size is not None and tuple(images.shape[-2:]) != self.size:
            # Bicubic weights overshoot, and sums of the others may miss 1 by a rounding.
            images = self._resized(images, self.interpolation).clamp(0, 1)
        if levels is not None and not self.changes_nothing:
            images = (images * (levels - 1)).round() / (levels - 1)
        images = images if self.crop is None else _centre(images, self.crop)
        # Gray becomes RGB last: one channel is resized, not three alike.
        return images if channels == images.shape[1] else images.repeat(1, channels, 1, 1)

    def mask(self, mask: Tensor) -> Tensor:
        """A boolean mask `[H, W]` through the same geometry as its image (nearest neighbour)."""
        moved = mask[None, None].float()
        if self.size is not None and tuple(mask.shape) != self.size:
            moved = self._resized(moved, "nearest")
        return (moved if self.crop is None else _centre(moved, self.crop))[0, 0] > 0.5

    def restore(self, maps: Tensor, native_size: Size) -> Tensor:
        """Maps `[B, h, w]` of treated images, laid back over the images' own `[B, H, W]`, bilinear.

        What the treatment cut off was never looked at and is NaN.
        """
        if self.crop is None and (self.size is None or self.fit == "stretch"):
            if tuple(maps.shape[1:]) == native_size:
                return maps
            return functional.interpolate(maps[:, None], native_size, mode="bilinear", align_corners=False)[:, 0]
        return torch.stack([self._laid_back(each, native_size) for each in maps])

    def _laid_back(self, score_map: Tensor, native_size: Size) -> Tensor:
        height, width = native_size
        top, left, bottom, right = 0, 0, *(self.size or native_size)
        if self.crop is not None:
            top, left = (bottom - self.crop[0]) // 2, (right - self.crop[1]) // 2
            bottom, right = top + self.crop[0], left + self.crop[1]
        canvas = torch.full(self.size or native_size, torch.nan, dtype=score_map.dtype)
        canvas[top:bottom, left:right] = score_map
        if self.size is None or self.size == native_size:
            return canvas
        inner, offset = self._placed(native_size)
        full = torch.full(inner, torch.nan, dtype=score_map.dtype)
        # `inner` is the resized image; the canvas is a window of it (cover) or holds it (contain).
        y, x = offset
        rows = (max(0, -y), min(canvas.shape[0], inner[0] - y))
        columns = (max(0, -x), min(canvas.shape[1], inner[1] - x))
        full[rows[0] + y : rows[1] + y, columns[0] + x : columns[1] + x] = canvas[slice(*rows), slice(*columns)]
        return functional.interpolate(full[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]

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
        if self.channels is None and self.native_channels not in (None, channels):
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

    def _placed(self, native: Size) -> tuple[Size, tuple[int, int]]:
        """Size of the resized image before it meets `size`, and where `size` begins in it (negative: padding)."""
        assert self.size is not None
        if self.fit == "stretch":
            return self.size, (0, 0)
        ratios = (self.size[0] / native[0], self.size[1] / native[1])
        ratio = max(ratios) if self.fit == "cover" else min(ratios)
        inner = (max(1, round(native[0] * ratio)), max(1, round(native[1] * ratio)))
        return inner, ((inner[0] - self.size[0]) // 2, (inner[1] - self.size[1]) // 2)

    def _resized(self, images: Tensor, interpolation: str) -> Tensor:
        assert self.size is not None
        inner, (y, x) = self._placed((images.shape[-2], images.shape[-1]))
        if inner != tuple(images.shape[-2:]):
            if interpolation == "nearest":
                images = functional.interpolate(images, inner, mode="nearest-exact")
            else:
                images = functional.interpolate(images, inner, mode=interpolation, antialias=True, align_corners=False)
        images = images[..., max(0, y) : max(0, y) + self.size[0], max(0, x) : max(0, x) + self.size[1]]
        missing = (self.size[0] - images.shape[-2], self.size[1] - images.shape[-1])
        if missing != (0, 0):
            above, left = max(0, -y), max(0, -x)
            images = functional.pad(images, (left, missing[1] - left, above, missing[0] - above), mode="replicate")
        return images


def _gray(images: Tensor) -> Tensor:
    weights = torch.tensor(_LUMA, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def _centre(images: Tensor, crop: Size) -> Tensor:
    top, left = (images.shape[-2] - crop[0]) // 2, (images.shape[-1] - crop[1]) // 2
    return images[..., top : top + crop[0], left : left + crop[1]]


def _words(size: Any) -> str:
    return "x".join(str(n) for n in size)


def _examples(found: dict[Any, str], words: Any) -> str:
    shown: Iterable[tuple[Any, str]] = list(found.items())[:3]
    return ", ".join(f"{words(what)} ({name})" for what, name in shown) + (", ..." if len(found) > 3 else "")
