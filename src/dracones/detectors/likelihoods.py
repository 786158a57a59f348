"""What a detector that learns a density of images can say beyond scores: log-likelihoods, samples, latents, reasons."""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from dracones.densities import Density
from dracones.detectors.known import Known
from dracones.images import open_images

_BATCH = 128


class Likelihoods(Known):
    """Verbs of the methods that learn p(image); the others refuse them by name. A part of `Detector`."""

    def log_prob(self, data: Any) -> Any:
        """Log-likelihood of 8-bit images in nats, ``[N]``; smaller = less likely. Not the score, which a rule makes.

        Args:
            data: images, as `predict` takes them; treated as they are for scoring.

        Returns:
            A tensor for a tensor, on its device; an array for anything else.

        Raises:
            TypeError: this method learns no density of images.
            ValueError: not fitted, or images that do not fit.
        """
        density = _density(self, "log_prob")
        return _like(data, torch.cat([density.log_prob(batch) for batch in _batches(self, data)]))

    def encode(self, data: Any) -> tuple[Any, ...]:
        """The latents of images, one ``[N, C, H, W]`` for each level of the flow.

        Returns:
            Tensors for a tensor, arrays for anything else.

        Raises:
            TypeError: this method learns no density with latents of that kind.
            ValueError: not fitted, or images that do not fit.
        """
        encode = _encoder(self)
        levels = zip(*(encode(batch) for batch in _batches(self, data)), strict=True)
        return tuple(_like(data, torch.cat(level)) for level in levels)

    def sample(
        self,
        count: int = 1,
        *,
        seed: int = 0,
        temperature: float = 1.0,
        kind: Literal["tensor", "numpy", "pil"] = "tensor",
    ) -> Any:
        """Images drawn from the density.

        Args:
            count: how many.
            seed: the same images for the same seed.
            temperature: below 1 likelier ones (Kingma and Dhariwal 2018, section 6).
            kind: a tensor ``[N, C, H, W]`` in [0, 1], an array ``[N, H, W, C]`` of uint8, or a list of Pillow images.

        Raises:
            TypeError: this method learns no density of images.
            ValueError: not fitted, a count below 1, a temperature that is not above 0, an unknown kind.
        """
        density = _density(self, "sample")
        if count < 1:
            raise ValueError(f"sample: count={count}; at least 1 is expected")
        if not temperature > 0:
            raise ValueError(f"sample: temperature={temperature}; a number above 0 is expected")
        if kind not in ("tensor", "numpy", "pil"):
            raise ValueError(f"sample: kind={kind!r} is unknown; expected tensor, numpy or pil")
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            drawn = density.eval().sample(count, generator=generator, temperature=temperature)
        if kind == "tensor":
            return drawn
        pixels = (drawn.cpu() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        return pixels if kind == "numpy" else [_as_pillow(image) for image in pixels]

    def explain(self, normal: Any, others: Mapping[str, Any], **options: Any) -> Any:
        """Whether this likelihood can be trusted on these images, and why not; see `dracones.anatomy.explain`.

        Args:
            normal: images that belong, not trained on.
            others: name to images that do not belong.
            options: those of `dracones.anatomy.explain`.

        Raises:
            TypeError: this method learns no density of images.
        """
        _density(self, "explain")
        # The room above: a detector offers its verb and does not depend on it.
        return import_module("dracones.anatomy").explain(self, normal, others, **options)


def _density(detector: Known, verb: str) -> Density:
    from dracones.methods.likelihood import Likelihood

    detector.fitted()
    if not isinstance(detector.method, Likelihood):
        raise TypeError(
            f"{detector.info.name} learns no density of images, so it has no {verb}(); "
            "glow, pixelcnn, realnvp and vae have one"
        )
    return detector.method.density


def _encoder(detector: Known) -> Callable[[Tensor], tuple[Tensor, ...]]:
    offered = getattr(_density(detector, "encode"), "encode", None)
    if offered is None:
        raise TypeError(f"{detector.info.name} has no latents that say all of an image; glow and realnvp have them")
    return cast(Callable[[Tensor], tuple[Tensor, ...]], offered)


def _batches(detector: Known, data: Any) -> Iterator[Tensor]:
    images = detector.adopt(open_images(data))
    detector.method.eval()
    with torch.no_grad():
        for batch in images.batches(_BATCH):
            yield batch.images.to(detector.device)


def _like(data: Any, found: Tensor) -> Any:
    return found.to(data.device) if isinstance(data, Tensor) else found.cpu().numpy()


def _as_pillow(image: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
