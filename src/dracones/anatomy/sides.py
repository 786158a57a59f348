"""The two sides of a comparison: normal images and named sets of others, treated alike."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dracones.densities import Density
from dracones.images import ImageCollection, Preprocess, open_images
from dracones.rules import gather

NORMAL = "normal"


@dataclass(frozen=True)
class Sides:
    """Images ready to be analysed, all [N, C, H, W] of one shape, in [0, 1]."""

    normal: Tensor
    others: Mapping[str, Tensor]

    @property
    def all(self) -> dict[str, Tensor]:
        """Every set by name, the normal one first."""
        return {NORMAL: self.normal, **self.others}


def open_sides(
    normal: Any,
    others: Mapping[str, Any],
    *,
    preprocess: Preprocess | None = None,
    count: int | None = None,
    seed: int = 0,
) -> Sides:
    """Open both sides with one treatment.

    Args:
        normal: what `dracones.images.open_images` takes.
        others: name to the same.
        preprocess: the common treatment. Without one, all sets must have the same size and channels.
        count: at most so many images of each set, drawn without replacement by ``seed``.
        seed: of the draw.

    Raises:
        ValueError: sizes or channels differ and no common resizing is named; a set without a readable image.

    Example:
        >>> sides = open_sides(torch.zeros(9, 1, 8, 8), {"white": torch.ones(5, 1, 8, 8)}, count=4)
        >>> {name: len(images) for name, images in sides.all.items()}
        {'normal': 4, 'white': 4}
    """
    collections = {NORMAL: open_images(normal), **{name: open_images(source) for name, source in others.items()}}
    if preprocess is None or preprocess.image_shape is None:
        treatment = _common(collections, preprocess)
    else:
        treatment = preprocess
    for name, found in collections.items():
        _check_first(name, found, treatment)
    read = {name: _read(name, found, treatment, count, seed) for name, found in collections.items()}
    return Sides(read.pop(NORMAL), read)


def checked_sides(density: Density, normal: Tensor, others: Mapping[str, Tensor]) -> Sides:
    """Both sides as the density takes them.

    Raises:
        ValueError: no other set, a set of another shape (named), or one with fewer than two images.
    """
    if not others:
        raise ValueError("nothing to compare with: name at least one other set of images")
    if NORMAL in others:
        raise ValueError(f"a set of others may not be called {NORMAL!r}; give it the name of what it shows")
    sides = Sides(normal, dict(others))
    for name, images in sides.all.items():
        if images.ndim != 4 or tuple(images.shape[1:]) != density.image_shape:
            raise ValueError(
                f"{name}: expected images [N, {', '.join(map(str, density.image_shape))}], got {list(images.shape)}; "
                "name a common resizing for both sides, as open_sides(..., preprocess=Preprocess(size=..., "
                "channels=...)): resizing one side alone leaves a trace that fakes a high AUROC"
            )
        if len(images) < 2:
            raise ValueError(f"{name}: expected at least 2 images, got {len(images)}")
    return sides


def statistics_of(density: Density, sides: Sides, names: tuple[str, ...], **options: Any) -> dict[str, dict[str, Any]]:
    """Set name to statistic name to float64 array [N]."""
    with evaluating(density):
        return {
            name: {key: values.numpy() for key, values in gather(density, images, names, **options).items()}
            for name, images in sides.all.items()
        }


def evenly(images: Tensor, count: int) -> Tensor:
    """At most ``count`` images, evenly spaced: sets often lie sorted by class.

    >>> evenly(torch.arange(10), 4).tolist()
    [0, 3, 6, 9]
    """
    if len(images) <= count:
        return images
    return images[torch.linspace(0, len(images) - 1, count).round().long()]


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Eval mode inside; every module's own mode is put back after."""
    modes = [[(part, part.training) for part in module.modules()] for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, training in (pair for mode in modes for pair in mode):
            part.training = training


def device_of(module: nn.Module) -> torch.device:
    """Where a module's tensors are."""
    for tensor in [*module.parameters(), *module.buffers()]:
        return tensor.device
    return torch.device("cpu")


def _common(collections: Mapping[str, ImageCollection], preprocess: Preprocess | None) -> Preprocess:
    """The treatment of the normal images, if the others have their size and channels or a conversion is named."""
    size, channels = (None, None) if preprocess is None else (preprocess.size, preprocess.channels)
    found = {name: Preprocess.infer(images, size=size, channels=channels) for name, images in collections.items()}
    for what, option in (("native_size", "size"), ("native_channels", "channels")):
        if len({getattr(each, what) for each in found.values()}) > 1:
            listed = ", ".join(f"{name}: {getattr(each, what)}" for name, each in found.items())
            raise ValueError(
                f"the sides of the comparison differ in {option} ({listed}); name a common treatment of both, "
                f"preprocess=Preprocess({option}=...): treating one side alone leaves a trace that fakes a high AUROC"
            )
    return preprocess if preprocess is not None else found[NORMAL]


def _check_first(name: str, images: ImageCollection, treatment: Preprocess) -> None:
    """Refuse a set whose first readable image does not fit, under the name of the set."""
    for index in range(len(images)):
        try:
            shape = images.native_shape(index)
        except (OSError, ValueError):
            continue  # reading all will report it
        try:
            treatment.check(*shape)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        return


def _read(name: str, images: ImageCollection, treatment: Preprocess, count: int | None, seed: int) -> Tensor:
    treated = images.with_preprocess(treatment)
    if count is not None and count < len(treated):
        chosen = torch.randperm(len(treated), generator=torch.Generator().manual_seed(seed))[:count]
        treated = treated.subset(sorted(chosen.tolist()))
    batches = [batch.images for batch in treated.batches(256)]
    if not batches:
        raise ValueError(f"{name}: no image of {images.name_of_source} could be read: {images.skipped_summary()}")
    return torch.cat(batches)
