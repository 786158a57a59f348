"""PatchCore: a memory of normal patch features, and how far a patch is from it."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from dracones.features import FeatureDataset
from dracones.methods.heatmap import at_size, blur, image_score
from dracones.methods.info import MethodInfo
from dracones.methods.learning import FitContext
from dracones.methods.on_features import FeatureMethod, MapConfig, Preset
from dracones.methods.registry import register
from dracones.methods.scores import Scores
from dracones.training import Progress, TrainingConfig, counting

_ROWS = 512  # of the memory, compared with at once
_PART = 16_384  # patches that are chosen among at once: so few stay in a processor's cache, pass after pass


class PatchCoreConfig(MapConfig):
    """The paper's values but for `put_forward` and `memory_limit`.

    The paper reports memories of 25 %, 10 % and 1 % of the patches, within .001 of each other.
    """

    presets: ClassVar[Mapping[Preset, Mapping[str, Any]]] = {
        "fast": {"memory_share": 0.002},
        "balanced": {"memory_share": 0.01},
        "best": {"memory_share": 0.1},
    }

    levels: tuple[int, ...] | None = Field((2, 3), description="feature levels; the paper's strides are 8 and 16")
    memory_share: float = Field(0.1, gt=0, le=1, description="share of the training patches that is kept")
    memory_limit: int = Field(20_000, ge=1, description="patches that are kept at most, however many images there are")
    put_forward: int = Field(
        4, ge=1, description="the last choice is among so many times the patches that are kept; see PatchCore"
    )
    projection: int = Field(128, ge=1, description="random dimensions in which the patches to keep are chosen")
    neighbours: int = Field(9, ge=1, description="neighbours that weigh score=patch; 1: no weight, as in their code")
    score: Literal["map", "patch"] = Field(
        "map", description="of an image: its map's image_score, or its worst patch, weighed by neighbours (the paper)"
    )
    blur_sigma: float = Field(4.0, ge=0, description="Gaussian smoothing of the heat map, pixels")


@register
class PatchCore(FeatureMethod):
    """The distance of each patch to its nearest neighbour among normal patches; exact, not trained.

    A patch is a position of the second level and the neighbourhood around it: each level is averaged over 3×3
    windows, brought to the finest level's size and concatenated. A greedy choice keeps the patches that leave no other
    far away (k-centre, in a random projection). The heat map is the distances, smoothed; the image score is the map's.
    ``score="patch"`` is the paper's: the distance of the worst patch, weighed by how lonely its nearest neighbour is in
    the memory (equation 7), which their code leaves out. On screws and tiles the smoothed map told more.

    Deviations. The greedy choice is made twice: a few images at a time put forward the patches that cover them best,
    ``put_forward`` times as many in all as will be kept, and those that are kept are chosen among these (composable
    core-sets). At most ``memory_limit`` are kept. So every patch is looked at, memory is bounded whatever the number of
    images, and the choice is faster than one among all at once, as few patches stay in a processor's cache. The paper
    pools the concatenated features to 1,024 dimensions, because its WideResNet has 1,536; narrower backbones are left
    as they are, wider ones pooled the same way.

    Reference:
        Roth et al. 2022, "Towards Total Recall in Industrial Anomaly Detection", sections 3.1 to 3.3;
        Malkomes et al. 2015, "Fast Distributed k-Center Clustering with Outliers on Massive Data" (choice in parts).
    """

    Config = PatchCoreConfig
    config: PatchCoreConfig
    info = MethodInfo(
        "patchcore",
        "Towards Total Recall in Industrial Anomaly Detection",
        ("Roth", "Pemula", "Zepeda", "Schölkopf", "Brox", "Gehler"),
        2022,
        "arXiv:2106.08265",
        "feature memory",
        needs=("images", "backbone"),
        gives=("score", "map"),
        summary="nearest neighbour in a memory of normal patches; no training",
    )
    memory: Tensor

    def build_on(self, channels: tuple[int, ...], sizes: tuple[tuple[int, int], ...]) -> None:  # noqa: ARG002
        """An empty memory."""
        self.register_buffer("memory", torch.empty(0, min(sum(channels), 1024)))

    def training_config(self) -> TrainingConfig | None:
        """Nothing is trained."""
        return None

    def fit_statistics(self, context: FitContext) -> None:
        """Keep those patches of the training images that are spread out the most."""
        self.learn(self.features_of(context.train, context.progress), context.generator, context.progress)

    @property
    def learns_on(self) -> bool:
        """The memory is chosen anew from what it holds and the new patches."""
        return True

    def learn_on(self, context: FitContext) -> tuple[str, ...]:
        """Choose among the patches that are held and the new ones; the memory grows by their share."""
        held = len(self.memory)
        self.fit_statistics(context)
        return (f"patchcore: {len(self.memory)} patches, of {held} that were held and the new ones",)

    def learn(self, features: FeatureDataset, generator: torch.Generator, progress: Progress | None = None) -> None:
        """Take in the patches of some images, beside those that the memory holds; it grows by their share."""
        patches = len(self._patches_of(next(iter(features.chunks(1)))))
        total = patches * len(features)
        config, held = self.config, len(self.memory)
        new = min(max(config.neighbours - held, round(config.memory_share * total)), total)
        count = min(held + new, config.memory_limit)
        images = max(1, _PART // patches)
        parts = -(-len(features) // images)
        several = parts > 1 or held > 0
        each = -(-config.put_forward * min(new, config.memory_limit) // parts) if several else count
        with counting(progress, parts * each + several * count, "choosing the patches to keep") as advance:
            # In one piece from the first: small pieces kept among large ones that are freed hold many times their size.
            candidates = torch.empty(held + parts * each, self.memory.shape[1], device=self.device)
            candidates[:held], filled = self.memory, held
            for maps in features.chunks(images):
                part = self._patches_of(maps)
                chosen = spread_out(part, min(each, len(part)), config.projection, generator, advance)
                candidates[filled : filled + len(chosen)] = part[chosen]
                filled += len(chosen)
            candidates = candidates[:filled]
            if several:
                candidates = candidates[spread_out(candidates, count, config.projection, generator, advance)]
            self.memory = candidates.clone()

    def _patches_of(self, maps: tuple[Tensor, ...]) -> Tensor:
        return self.patches(tuple(level.to(self.device) for level in maps)).flatten(0, 2)

    def patches(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Patch features `[B, h, w, D]` at the finest level's positions."""
        size = (maps[0].shape[2], maps[0].shape[3])
        smooth = [F.avg_pool2d(level.float(), 3, stride=1, padding=1) for level in maps]
        aligned = [
            level if level.shape[2:] == size else F.interpolate(level, size=size, mode="bilinear", align_corners=False)
            for level in smooth
        ]
        joined = torch.cat(aligned, dim=1).permute(0, 2, 3, 1)
        width = self.memory.shape[1]
        if joined.shape[3] == width:
            return joined
        return F.adaptive_avg_pool1d(joined.flatten(0, 2), width).view(*joined.shape[:3], width)

    def score_maps(self, maps: tuple[Tensor, ...], size: tuple[int, int]) -> Scores:
        """Score of the map or weighed distance of the worst patch `[B]`, and smoothed distances `[B, H, W]`."""
        with self.full_precision():
            return self._score_patches(self.patches(maps), size)

    def _score_patches(self, patches: Tensor, size: tuple[int, int]) -> Scores:
        count, height, width, _ = patches.shape
        flat = patches.reshape(count, height * width, -1)
        distance, nearest = nearest_in(flat, self.memory)
        worst = distance.argmax(dim=1, keepdim=True)
        largest = distance.gather(1, worst)[:, 0]
        patch = flat.gather(1, worst[:, :, None].expand(-1, -1, flat.shape[2]))[:, 0]
        weight = self._loneliness(patch, nearest.gather(1, worst)[:, 0], largest)
        heat = blur(at_size(distance.view(count, height, width), size), self.config.blur_sigma)
        if self.config.score == "map":
            return Scores(image_score(heat, self.config.image_score, self.config.top_share), heat)
        return Scores(largest * weight, heat)

    def _loneliness(self, patch: Tensor, nearest: Tensor, distance: Tensor) -> Tensor:
        """1 - softmax of the patch's distance among its distances to the memory around its neighbour (equation 7)."""
        neighbours = min(self.config.neighbours, len(self.memory))
        if neighbours == 1:
            return torch.ones_like(distance)
        centred = self.memory - self.memory.mean(dim=0)
        around = _half_squares(centred[nearest], centred).topk(neighbours, dim=1, largest=False).indices
        distances = torch.linalg.vector_norm(self.memory[around] - patch[:, None], dim=2)
        return 1 - torch.exp(distance - distances.logsumexp(dim=1))


def nearest_in(vectors: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Euclidean distance `[..., N]` of each vector `[..., N, D]` to its nearest in the memory, and its index; exact.

    The neighbour is found by squared distances through one matrix product, whose rounding could spoil small
    distances: the distance itself is computed from the difference. The memory is walked in pieces, so that what is
    held at once does not grow with it.
    """
    centre = memory.mean(dim=0)  # features far from zero would lose their digits in the norms
    centred, vectors_centred = memory - centre, vectors - centre
    found = [_half_squares(vectors_centred, piece).min(dim=-1) for piece in centred.split(_ROWS)]
    least, nearest = found[0].values, found[0].indices
    for place, (values, indices) in enumerate(found[1:], start=1):
        nearest = torch.where(values < least, indices + place * _ROWS, nearest)
        least = torch.minimum(values, least)
    return torch.linalg.vector_norm(vectors - memory[nearest], dim=-1), nearest


def _half_squares(vectors: Tensor, memory: Tensor) -> Tensor:
    """Half the squared distances `[..., N, M]`, less what a vector adds to all of its own: for their order alone."""
    return 0.5 * memory.square().sum(dim=1) - vectors @ memory.T


def spread_out(
    vectors: Tensor,
    count: int,
    projection: int,
    generator: torch.Generator,
    advance: Callable[[int], None] | None = None,
) -> Tensor:
    """Indices `[count]` of vectors chosen greedily, each the farthest from those before (k-centre; algorithm 1).

    Distances are taken after a random projection to `projection` dimensions, which keeps them within a few percent
    (Johnson and Lindenstrauss) and makes each of the `count` passes cheap. `advance` counts the chosen.
    """
    if projection < vectors.shape[1]:
        matrix = torch.randn(vectors.shape[1], projection, generator=generator).to(vectors) / projection**0.5
        vectors = vectors @ matrix
    half_norms = 0.5 * vectors.square().sum(dim=1)
    chosen = torch.empty(count, dtype=torch.long, device=vectors.device)
    chosen[0] = torch.randint(len(vectors), (1,), generator=generator).to(vectors.device)
    # Half the squared distance to the nearest chosen vector. One product a pass reads all vectors once.
    distance = torch.full((len(vectors),), torch.inf, device=vectors.device)
    for place in range(count):
        latest = chosen[place]
        to_latest = half_norms - vectors @ vectors[latest] + half_norms[latest]
        distance = torch.minimum(distance, to_latest)
        # Rounding may leave a chosen vector at a tiny distance from itself: never twice the same.
        distance[latest] = -torch.inf
        if place + 1 < count:
            chosen[place + 1] = distance.argmax()
        if advance is not None and place % 64 == 63:
            advance(64)
    return chosen
