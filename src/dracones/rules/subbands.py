"""Sub-band energies: how much an image varies at each scale, in each direction, in brightness and in colour.

Functions of the image alone. Natural images keep them in proportion; what is smoother, noisier or sharper
than the normal images at one scale shows in the proportion even where no single number is unusual.
"""

import torch
from torch import Tensor

DIRECTIONS = ("horizontal", "vertical", "diagonal")
_FLOOR = (1 / 255) ** 2 / 12  # the energy of rounding to 256 levels: the logarithm of anything less means nothing


def subband_names(image_shape: tuple[int, int, int], *, scales: int = 3) -> tuple[str, ...]:
    """Names of the energies that `subband_energies` gives for images of this shape.

    >>> subband_names((1, 28, 28))[:4]
    ('brightness', 'subband1_horizontal', 'subband1_vertical', 'subband1_diagonal')
    """
    channels, height, width = image_shape
    names = []
    for kind in ("", "colour_") if channels == 3 else ("",):
        names.append("colour" if kind else "brightness")
        names += [
            f"{kind}subband{scale}_{direction}"
            for scale in range(1, _scales(height, width, scales) + 1)
            for direction in DIRECTIONS
        ]
    return tuple(names)


def subband_energies(images: Tensor, *, scales: int = 3) -> dict[str, Tensor]:
    """Log mean squares of Haar detail coefficients [B], by scale (1 = finest), direction, brightness and colour.

    Brightness is the mean of the channels; colour (three channels only) the two opponent differences, their
    energies added. `brightness` is the mean level itself, `colour` the log mean square of the mean opponents.
    An odd row or column at the edge is left out of the next scale. The transform is orthonormal: for white
    noise all scales have the same energy.

    >>> checker = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(4, 4)[None, None]
    >>> energies = subband_energies(checker)
    >>> round(energies["subband1_diagonal"].exp().item(), 4), energies["subband1_vertical"].item() < -11
    (1.0, True)
    """
    if images.ndim != 4:
        raise ValueError(f"subband_energies: expected images [B, C, H, W], got {list(images.shape)}")
    pixels = images.detach().double()
    names = subband_names(tuple(images.shape[1:]), scales=scales)  # type: ignore[arg-type]
    luma = pixels.mean(dim=1, keepdim=True)
    columns = [luma.mean(dim=(1, 2, 3)), *_pyramid(luma, scales)]
    if images.shape[1] == 3:
        red, green, blue = pixels.unbind(dim=1)
        opponents = torch.stack([red - green, (red + green) / 2 - blue], dim=1)
        columns += [_log_energy(opponents.mean(dim=(2, 3))), *_pyramid(opponents, scales)]
    return dict(zip(names, columns, strict=True))


def _scales(height: int, width: int, most: int) -> int:
    count = 0
    while count < most and min(height, width) >= 4:
        height, width, count = height // 2, width // 2, count + 1
    return count


def _pyramid(planes: Tensor, scales: int) -> list[Tensor]:
    energies = []
    for _ in range(_scales(planes.shape[-2], planes.shape[-1], scales)):
        even = planes[..., : planes.shape[-2] // 2 * 2, : planes.shape[-1] // 2 * 2]
        a, b = even[..., ::2, ::2], even[..., ::2, 1::2]
        c, d = even[..., 1::2, ::2], even[..., 1::2, 1::2]
        details = ((a + b - c - d) / 2, (a - b + c - d) / 2, (a - b - c + d) / 2)
        energies += [_log_energy(detail.flatten(1)) for detail in details]
        planes = (a + b + c + d) / 2
    return energies


def _log_energy(values: Tensor) -> Tensor:
    return torch.log(values.square().mean(dim=1) + _FLOOR)
