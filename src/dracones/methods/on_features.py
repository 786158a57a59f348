"""What every method on frozen features shares: backbone, cache, from maps to scores, small files."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import override

from dracones.features import (
    PACKAGED,
    EnlargedExtractor,
    Extractor,
    FeatureCache,
    FeatureDataset,
    FeatureExtractor,
    InPrecision,
    ScaledExtractor,
    computes_bf16,
    default_backbone,
    features_in_memory,
)
from dracones.flows.precision import without_autocast
from dracones.images import ImageCollection
from dracones.methods.config import MethodConfig
from dracones.methods.heatmap import ImageScore, at_size, image_score
from dracones.methods.method import Method
from dracones.methods.scores import Scores
from dracones.training import Progress, TrainingConfig

FeatureReader = Callable[[ImageCollection, Progress | None], FeatureDataset]
Preset = Literal["fast", "balanced", "best"]


class FeatureConfig(MethodConfig):
    """Options of every method on frozen features.

    ``preset`` fills in what is not given: ``balanced`` (default) is the paper's method at a cost a CPU can pay,
    ``fast`` cheaper, ``best`` the paper's full recipe. Where neither ``backbone`` nor ``weights`` are named, the
    backbone is one that a package brought (`default_backbone`), if there is one, else the method's own from the hub.
    A saved configuration names every value, so it depends neither on what a preset means nor on what is installed.
    """

    presets: ClassVar[Mapping[Preset, Mapping[str, Any]]] = {"fast": {}, "balanced": {}, "best": {}}

    preset: Preset = Field("balanced", description="fast, balanced or best: fills in options that are not given")
    size: tuple[int, int] | None = Field(
        (256, 256), description="height, width that images are brought to; with tile: their own"
    )
    backbone: str = Field(
        "resnet18", description="timm name, or torchvision's where timm has none; a packaged one if none is named"
    )
    weights: str = Field(
        "pretrained", description="'packaged' (by pip), 'pretrained' (from the hub), 'random', or a file (.safetensors)"
    )
    levels: tuple[int, ...] | None = Field((1, 2, 3), description="feature levels; strides 4, 8, 16 are 1, 2, 3")
    precision: Literal["fp32", "bf16", "auto"] = Field(
        "fp32", description="of convolutions in training and scoring; auto: bf16 where the processor has it"
    )
    cache: bool = Field(
        True, description="keep the training images' features on disk, for the next epoch, run, method; else in memory"
    )
    cache_gigabytes: float = Field(8.0, ge=0, description="disk that the feature cache may take")

    @classmethod
    def from_options(cls, **options: Any) -> Self:
        """As `MethodConfig.from_options`; what the preset says counts where an option is not given.

        Raises:
            ValueError: unknown option, preset, or a value that does not fit.
        """
        preset = options.get("preset", cls.model_fields["preset"].default)
        given = cls._nest(options)
        cls._name_backbone(given)
        if given.get("tile") is not None:
            # Images are cut in tiles as they are: brought to one size first, a large one would lose what tiles are for.
            given.setdefault("size", None)
        for name, value in cls._nest(dict(cls.presets.get(preset, {}))).items():
            if isinstance(value, dict) and isinstance(given.get(name), dict):
                asked = {key.split(".")[-1] for key in options} | set(options.get(name) or {})
                given[name] = {**value, **{key: item for key, item in given[name].items() if key in asked}}
            else:
                given.setdefault(name, value)
        return super().from_options(**given)

    @staticmethod
    def _name_backbone(given: dict[str, Any]) -> None:
        """Fill in the packaged backbone where none is named, or where the weights alone are said to be packaged."""
        if "backbone" in given or given.get("weights", "packaged") != "packaged":
            return
        name, weights = default_backbone()
        if weights == "packaged":
            given |= {"backbone": name, "weights": weights}
        elif "weights" in given:
            given["backbone"] = next(iter(PACKAGED))  # not installed: its error names the ways out


class MapConfig(FeatureConfig):
    """Options of a method whose score is read off its heat map."""

    image_score: ImageScore = Field(
        "top", description="how a heat map becomes a score: top (share; many papers' max hangs on one pixel), max, mean"
    )
    top_share: float = Field(0.003, gt=0, le=1, description="share of pixels that image_score=top averages")


class FeatureMethod(Method):
    """Base of methods that see images through a frozen backbone.

    A subclass makes its model in `build_on` and scores in `score_maps`, which sees feature maps alone, so that several
    methods can share one pass of the backbone; `MapMethod` is for those whose score is read off a heat map.
    Without random augmentation the features are computed once and read from the cache in each epoch.
    """

    Config: ClassVar[type[MethodConfig]] = FeatureConfig
    config: FeatureConfig

    def __init__(self, config: MethodConfig | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        self._reader: FeatureReader | None = None

    def read_from(self, reader: FeatureReader) -> None:
        """Have features come from elsewhere: for a method that shares another's pass of the backbone."""
        self._reader = reader

    def build(self, image_shape: tuple[int, int, int]) -> None:
        """The backbone's architecture (its weights come at `fit`, or with the file), and the model on top."""
        channels, height, width = image_shape
        self.extractor = self.make_extractor(channels)
        self._has_weights = False
        self.build_on(self.extractor.channels, self.extractor.map_sizes(height, width))

    def make_extractor(self, channels: int) -> FeatureExtractor | ScaledExtractor | EnlargedExtractor:
        """The frozen network: the backbone, alone unless a method looks at several sizes of an image."""
        return self.make_backbone(channels)

    def make_backbone(self, channels: int) -> FeatureExtractor:
        """The backbone's architecture, with weights to come."""
        return FeatureExtractor(self.config.backbone, levels=self.config.levels, weights="random", channels=channels)

    @abstractmethod
    def build_on(self, channels: tuple[int, ...], sizes: tuple[tuple[int, int], ...]) -> None:
        """Make the submodules for feature maps of these widths and sizes, finest first."""

    def full_precision(self) -> AbstractContextManager[Any]:
        """Float32 within `scoring_precision`: for distances, which lose their digits in bfloat16."""
        return without_autocast(self.device.type)

    def forward(self, images: Tensor, host: Tensor | None = None) -> Scores:  # noqa: ARG002
        """Scores `[B]` and heat maps `[B, H, W]` of images `[B, C, H, W]` in [0, 1]."""
        with self.scoring_precision():
            maps = self.extractor(images)
            return self.score_maps(maps, (images.shape[2], images.shape[3]))

    def score_maps(self, maps: tuple[Tensor, ...], size: tuple[int, int]) -> Scores:
        """Scores `[B]` and heat maps `[B, H, W]`, if any, of images of `size`, from their feature maps."""
        del maps, size
        raise TypeError(f"{type(self).__name__} sees more than one view of an image and overrides forward")

    def score_as_unseen(self, maps: tuple[Tensor, ...], size: tuple[int, int]) -> Scores | None:
        """As `score_maps`, of images that were learnt from, as if each of them had been left out.

        None where a method cannot tell without a fit anew.
        """
        del maps, size
        return None

    def scoring_precision(self) -> AbstractContextManager[Any]:
        """Autocast to bfloat16 where the configuration asks for it."""
        kind = self.device.type
        return torch.autocast(kind, torch.bfloat16) if self.config.precision == "bf16" else without_autocast(kind)

    def settle(self, device: torch.device) -> None:
        """What ``precision="auto"`` means here: scores and threshold are of one precision, wherever it is loaded."""
        if self.config.precision == "auto":
            found = "bf16" if computes_bf16(device) else "fp32"
            self.config = self.config.model_copy(update={"precision": found})

    def training_config(self) -> TrainingConfig | None:
        """The configuration's training, in the precision of scoring."""
        training = super().training_config()
        return training if training is None else training.model_copy(update={"precision": self.config.precision})

    def load_backbone(self) -> None:
        """Fetch the backbone's weights once; a file that was loaded brought them along."""
        if not self._has_weights:
            self.extractor.load(self.config.weights)
            self._has_weights = True

    def training_data(self, images: ImageCollection, progress: Progress | None = None) -> Dataset[Any]:
        """Features of the images, from the cache."""
        return self.features_of(images, progress)

    def cached_network(self) -> Extractor:
        """What is computed once an image and kept; the extractor unless a method says otherwise."""
        return self.extractor

    def features_of(
        self, images: ImageCollection, progress: Any = None, *, extractor: Extractor | None = None
    ) -> FeatureDataset:
        """Features of the images: computed once and kept on disk, or in memory without a cache."""
        if self._reader is not None:
            return self._reader(images, progress)
        self.load_backbone()
        network = self.cached_network() if extractor is None else extractor
        if self.config.precision == "bf16":
            network = InPrecision(network)
        if self.config.cache:
            cache = FeatureCache(budget_bytes=int(self.config.cache_gigabytes * 1024**3))
            return cache.features(network, images, progress=progress)
        return features_in_memory(network, images, progress=progress)

    def saved_state(self) -> dict[str, Tensor]:
        """The state; frozen backbone weights in half precision where that loses nothing."""
        state = dict(self.state_dict())
        frozen = {f"extractor.{name}" for name, _ in self.extractor.named_parameters()}
        return {name: _halved(tensor) if name in frozen else tensor for name, tensor in state.items()}

    def restore(self, extras: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
        """Take over a saved state, backbone included.

        Raises:
            ValueError: the precision that the calibration was made in is not said.
        """
        if self.config.precision == "auto":
            raise ValueError("its precision is 'auto': scores would be of another precision than the threshold")
        super().restore(extras, state)
        self._has_weights = True


class MapMethod(FeatureMethod):
    """Base of methods that give a heat map in `heat`, and score an image by it as ``image_score`` says."""

    Config: ClassVar[type[MethodConfig]] = MapConfig
    config: MapConfig

    @abstractmethod
    def heat(self, maps: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        """Heat map `[B, H, W]`, for images of `size`, from their feature maps; larger = more anomalous."""

    @override
    def score_maps(self, maps: tuple[Tensor, ...], size: tuple[int, int]) -> Scores:
        return self.scores_of(self.heat(maps, size), size)

    def scores_of(self, heat: Tensor, size: tuple[int, int]) -> Scores:
        """What a heat map `[B, H, W]` says of each image, and the map at `size`."""
        heat = at_size(heat.float(), size)
        return Scores(image_score(heat, self.config.image_score, self.config.top_share), heat)


def _halved(tensor: Tensor) -> Tensor:
    half = tensor.half()
    return half if torch.equal(half.float(), tensor) else tensor
