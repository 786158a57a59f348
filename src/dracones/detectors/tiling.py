"""Large images in overlapping tiles: a method of tiles scores images of any size, in memory bounded by the tile."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dracones.images import Tiling
from dracones.methods import Method, Scores


def score_in_tiles(method: Method, image: Tensor, tiling: Tiling, batch_size: int) -> Scores:
    """Scores of one image ``[C, H, W]``: the highest tile's, and the tiles' maps blended, ``[1]`` and ``[1, H, W]``.

    Evidence is that of the highest tile.

    A method without maps has each tile's score stand for all of the tile, so that even a plain likelihood shows where.
    """
    found: list[Tensor] = []
    evidence: list[Tensor] = []

    def maps_of(tiles: Tensor) -> Tensor:
        tiles = tiles.to(method.device)
        scores: Scores = method(tiles, method.host_statistics(tiles))
        found.append(scores.image.float().cpu())
        if scores.evidence is not None:
            evidence.append(scores.evidence.float().cpu())
        if scores.map is None:
            return scores.image.float()[:, None, None].expand(-1, *tiling.size).cpu()
        if tuple(scores.map.shape[1:]) == tiling.size:
            return scores.map.float().cpu()
        resized = interpolate(scores.map[:, None].float(), size=tiling.size, mode="bilinear", align_corners=False)
        return resized[:, 0].cpu()

    blended = tiling.map(image, maps_of, batch_size=batch_size)
    scores = torch.cat(found)
    highest = scores.argmax()[None]
    return Scores(scores[highest], blended[None], torch.cat(evidence)[highest] if evidence else None)
