"""Images that an export proves itself on, and what the pipeline says of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dracones.detectors import Detector
from dracones.export.deployed import Deployed, Input

_KEPT = 32  # rows and columns of a map that are kept in the file


def proof_images(takes: Input, near: tuple[int, int], count: int, seed: int = 0) -> NDArray[np.uint8]:
    """``[count, C, H, W]`` uint8: smooth, striped, speckled and noisy pictures, of a size near what the method sees."""
    generator = np.random.default_rng(seed)
    height, width = takes.size or (near[0] + near[0] // 4 + seed + 1, near[1] + near[1] // 5 + 2 * seed + 3)
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    pictures = []
    for i in range(count):
        phases = generator.random((takes.channels, 3))[:, :, None, None]
        waves = np.sin(2 * np.pi * ((1 + 3 * phases[:, 0]) * rows + (1 + 5 * phases[:, 1]) * columns + phases[:, 2]))
        noise = generator.normal(size=(takes.channels, height, width))
        pictures.append(0.5 + 0.3 * waves + (0.02, 0.1, 0.4)[i % 3] * noise)
    levels: NDArray[np.uint8] = (np.clip(np.stack(pictures), 0, 1) * 255).round().astype(np.uint8)
    return levels


@torch.no_grad()
def expected(detector: Detector, deployed: Deployed, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """What the pipeline says of images ``[B, C, H, W]``, by name."""
    tensor = torch.from_numpy(images).to(detector.device)
    host = host_of(detector, tensor)
    answers: Sequence[torch.Tensor] = deployed(tensor, host)
    return {name: answer.cpu().numpy() for name, answer in zip(deployed.names, answers, strict=True)}


def host_of(detector: Detector, images: torch.Tensor) -> torch.Tensor | None:
    """The host inputs of decoded images."""
    from dracones.images import as_float, levels_of

    preprocess = detector.pipeline.preprocess
    return detector.method.host_statistics(preprocess.treat(as_float(images), levels_of(images)))


def stride_of(images: NDArray[np.uint8]) -> int:
    """Every how many-th row and column of a map is kept."""
    return max(1, int(min(images.shape[2:])) // _KEPT)
