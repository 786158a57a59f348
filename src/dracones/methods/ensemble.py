"""The answer of several methods over one pass of the backbone, on the scale of normal images."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from dracones.features import (
    FeatureDataset,
    ScaledExtractor,
    Statistic,
)
from dracones.images import DEFECT_KINDS, ImageCollection, with_defect
from dracones.methods.feature_flows.cflow import CFlow
from dracones.methods.feature_flows.embedding_flow import EmbeddingFlow
from dracones.methods.info import MethodInfo
from dracones.methods.learning import FitContext, Parts, Trainee
from dracones.methods.memories.padim import PaDiM
from dracones.methods.memories.patchcore import PatchCore
from dracones.methods.on_features import FeatureMethod, MapConfig, Preset
from dracones.methods.registry import register
from dracones.methods.scores import Scores
from dracones.methods.shared_pass import SharedReader
from dracones.methods.witness_scale import Measured, WitnessScale, scores_of_witnesses
from dracones.methods.witness_weights import Standard, loudness, witness_weights
from dracones.training import Progress, counting

WitnessName = Literal["whole", "place", "patch", "flow"]

_WORDS: dict[WitnessName, str] = {
    "whole": "the whole image",
    "place": "a place",
    "patch": "a patch",
    "flow": "a patch in its place",
}
_POOLING: tuple[Statistic, ...] = ("mean", "max", "std")
_AT_ONCE = 16
_LEAST_DEFECTS, _DEFECTS_AN_IMAGE = 20, 2


class EnsembleConfig(MapConfig):
    """What is asked, and how the answers are merged; each witness has the defaults of its own method otherwise.

    ``fast`` leaves out the Gaussian of each place and halves the memory; ``balanced`` has the three that need no
    training; ``best`` a larger memory and, as a fourth witness, a conditional flow.
    """

    presets: ClassVar[Mapping[Preset, Mapping[str, Any]]] = {
        "fast": {"witnesses": ("whole", "patch"), "memory_share": 0.01},
        "balanced": {},
        "best": {"witnesses": ("whole", "place", "patch", "flow"), "memory_share": 0.05},
    }

    witnesses: tuple[WitnessName, ...] = Field(
        ("whole", "place", "patch"),
        min_length=1,
        description="who is asked: the whole image (a Gaussian), each place (padim), each patch (patchcore), cflow",
    )
    weighting: Literal["made_defects", "equal"] = Field(
        "made_defects", description="by how well a witness tells made defects on held-out normal images, or all alike"
    )
    made_defects: int = Field(
        150, ge=20, description="made defects that weigh the witnesses, at most: two a held-out image, 20 at least"
    )
    scales: int = Field(3, ge=1, description="image sizes of the whole image's embedding, each half the one before")
    memory_share: float = Field(0.02, gt=0, le=1, description="share of the training patches that patchcore keeps")
    keep_going: bool = Field(
        False, description="go on without a witness that fails, and name it; otherwise the fit stops there"
    )
    flow_epochs: int = Field(12, ge=1, description="epochs of cflow, where it is asked")
    validation_share: float = Field(
        0.2, gt=0, lt=0.9, description="share of the normal images that brings the witnesses to one scale"
    )


@register
class Ensemble(FeatureMethod):
    r"""Several methods asked about one image, their answers merged in the currency of normal images.

    One pass of the backbone feeds all *witnesses*: the Gaussian of the whole image's embedding at several sizes
    (`EmbeddingFlow` without couplings), that of each place (`PaDiM`), the nearest normal patch (`PatchCore`), and a
    conditional flow (`CFlow`). Each
    score, and each pixel of each heat map, is brought to standard deviations among held-out normal images. Those weigh
    the witnesses while none has learnt from them; then the Gaussians and the memory take them in too, so that none is
    wasted, and a Gaussian's scale is measured anew as if each image alone were unknown to it (`left_out`).
    The map is their weighted mean; in the score a witness that finds an image more usual than most excuses nothing that
    another one sees,

    .. math:: s = \sum_w a_w\, \tfrac12 \log\bigl(1 + e^{2 (s_w - \mu_w) / \sigma_w}\bigr).

    The weights :math:`a_w` come from normal images too: defects are made on the held-out ones (patches, scars, foreign
    texture, blur, missing parts; drawn sizes and contrasts), and a witness counts by how well it tells them from good
    images (`witness_weights`). No real defect chooses anything.

    Which inspection set favours which method is not known beforehand: defects of the whole surface are found by a
    global embedding, small ones on parts that lie in any position by patches. The merged answer does not ask the
    engineer to know.
    """

    Config = EnsembleConfig
    config: EnsembleConfig
    info = MethodInfo(
        "ensemble",
        "Several methods merged on the scale of normal images",
        ("dracones",),
        2026,
        "docs/inspection.md",
        "feature memory",
        needs=("images", "backbone"),
        gives=("score", "map"),
        summary="whole image, places and patches in one answer: the method for who has no opinion",
    )
    centre: Tensor
    spread: Tensor
    map_centre: Tensor
    map_spread: Tensor
    weights: Tensor

    def make_extractor(self, channels: int) -> ScaledExtractor:
        """The backbone, once for all witnesses."""
        return ScaledExtractor(self.make_backbone(channels), self.config.scales)

    def build(self, image_shape: tuple[int, int, int]) -> None:
        """The backbone and the witnesses."""
        self._size = image_shape[1:]
        super().build(image_shape)

    def build_on(self, channels: tuple[int, ...], sizes: tuple[tuple[int, int], ...]) -> None:
        """Each witness on the maps that it looks at, and what brings them to one scale."""
        self.witnesses = nn.ModuleDict()
        for name in self.config.witnesses:
            seen = self._levels_of(name)
            witness = _witness(name, self.config)
            witness.build_on(tuple(channels[i] for i in seen), tuple(sizes[i] for i in seen))
            self.witnesses[name] = witness
        self._failures: tuple[str, ...] = ()
        self._make_scale()

    def _make_scale(self) -> None:
        for buffer in ("centre", "spread", "map_centre", "map_spread", "weights"):
            self.register_buffer(buffer, torch.ones(len(self.witnesses), device=self.device))

    @property
    def voices(self) -> tuple[str, ...]:
        """In the words of a verdict."""
        return tuple(_WORDS[name] for name in self.config.witnesses)

    @property
    def names(self) -> tuple[WitnessName, ...]:
        """Of the witnesses, in the order of `Scores.evidence`."""
        return self.config.witnesses

    # Learning -----------------------------------------------------------------------------------------------------

    def trainees(self, parts: Parts, progress: Progress | None = None) -> Iterator[Trainee]:
        """The runs of all witnesses, one after the other."""
        number = 0
        self._share()
        for name, witness in zip(self.names, self._members(), strict=True):
            try:
                for trainee in witness.trainees(parts, progress):
                    yield trainee._replace(number=number)
                    number += 1
            except Exception as error:  # whatever it is: it is named, and the others may do without
                self._go_on_without(name, error)

    def fit_statistics(self, context: FitContext) -> None:
        """What each witness gathers; the scale of held-out normal images, and the weights; then these images too.

        Raises:
            ValueError: no image is held out, so there is no scale.
        """
        if len(context.held_out) < 2:
            raise ValueError(
                f"ensemble: {len(context.held_out)} normal images are held out; at least 2 bring the witnesses to one "
                "scale (validation_share)"
            )
        for name, witness in zip(self.names, self._members(), strict=True):
            try:
                witness.fit_statistics(context)
            except Exception as error:
                self._go_on_without(name, error)
        self._weigh(context)
        self._learn_held_out(context)
        self._passes.clear()

    @property
    def learns_held_out(self) -> bool:
        """Where a witness can learn on: they weigh the witnesses first."""
        return self.learns_on

    @property
    def learns_on(self) -> bool:
        """Where a witness does; the others are left as they were trained."""
        return any(witness.learns_on for witness in self._members())

    def learn_on(self, context: FitContext) -> tuple[str, ...]:
        """Have the witnesses that can learn on do so; then scale and weights anew, from the new held-out images."""
        if len(context.held_out) < 2:
            raise ValueError(
                f"ensemble: {len(context.held_out)} of the new images are held out; at least 2 bring the witnesses to "
                "one scale: give more images"
            )
        self._share()
        said: list[str] = []
        for name, witness in zip(self.names, self._members(), strict=True):
            said += witness.learn_on(context) if witness.learns_on else (f"{name}: left as it was trained",)
        self._weigh(context)
        self._learn_held_out(context)
        self._passes.clear()
        held = len(context.held_out)
        return (*said, f"scale and weights of the witnesses: anew, from {held} of the new images, learnt from last")

    def _weigh(self, context: FitContext) -> None:
        normal = self._standardise(context)
        if self.config.weighting == "made_defects":
            self.weights.copy_(witness_weights(normal, self._answers_to_defects(context)))
        else:
            self.weights.fill_(1 / len(self.weights))

    def _learn_held_out(self, context: FitContext) -> None:
        """Have the witnesses take in the held-out images too, where they can: these have told what they had to.

        The scale of a Gaussian is then measured anew, each of these images judged as if it alone were unknown: a
        witness that knows more finds good images more usual, and on the scale of before it would have less of a say. A
        memory keeps that scale, a little wide for it. Copies of one another make a Gaussian's a little narrow. The
        false-alarm rate hangs on neither, as other images calibrate.

        Raises:
            RuntimeError: a witness failed: the weights are told, so that the others cannot go on without it.
        """
        late = context._replace(train=context.held_out, held_out=context.held_out.subset([]))
        for place, (name, witness) in enumerate(zip(self.names, self._members(), strict=True)):
            try:
                if witness.learns_on:
                    witness.learn_on(late)
                    self._measure_anew(place, name, witness, context)
            except Exception as error:
                raise RuntimeError(
                    f"ensemble: the witness {name} ({_WORDS[name]}) failed on the images that were held out: {error}; "
                    "leave it out of witnesses"
                ) from error

    def _measure_anew(self, place: int, name: str, witness: FeatureMethod, context: FitContext) -> None:
        """Set a witness's scale from images that it has learnt from by now, where it can judge them as unseen."""
        levels, measured = self._levels_of(name), Measured()
        for maps in self._pass(context.held_out, context.progress).chunks(_AT_ONCE):
            with self.scoring_precision():
                answer = witness.score_as_unseen(tuple(maps[i].to(self.device) for i in levels), self._size)
            if answer is None:
                return
            measured.take_in([answer])
        if not measured.scores().isfinite().all():
            raise ValueError("its scores of held-out normal images are not finite")
        for buffer, found in zip(self._scale(), measured.scale(), strict=True):
            buffer[place] = found[0]

    def _scale(self) -> WitnessScale:
        return WitnessScale(self.centre, self.spread, self.map_centre, self.map_spread)

    def _standardise(self, context: FitContext) -> Tensor:
        """Set the scale; standardised scores `[N, W]` of the held-out normal images."""
        measured = Measured()
        for maps in self._pass(context.held_out, context.progress).chunks(_AT_ONCE):
            with self.scoring_precision():
                measured.take_in(self._answers(tuple(level.to(self.device) for level in maps), self._size))
        found = measured.scores()
        failed = [
            name for name, known in zip(self.names, found.isfinite().all(dim=0).tolist(), strict=True) if not known
        ]
        if failed:
            self._go_on_without(failed[0], ValueError("its scores of held-out normal images are not finite"))
            return self._standardise(context)
        for buffer, values in zip(self._scale(), measured.scale(), strict=True):
            buffer.copy_(values)
        return Standard(self.centre, self.spread)(found)

    def _answers_to_defects(self, context: FitContext) -> Tensor:
        """Standardised scores `[M, W]` of held-out images with made defects."""
        generator, images = context.generator, context.held_out
        # Of few good images more defects would not tell more: what they are held against is as uncertain.
        count = min(self.config.made_defects, max(_LEAST_DEFECTS, _DEFECTS_AN_IMAGE * len(images)))
        order = torch.randint(len(images), (count,), generator=generator).tolist()
        found = []
        with counting(context.progress, len(order), "weighing the witnesses") as advance:
            for start in range(0, len(order), _AT_ONCE):
                chosen = order[start : start + _AT_ONCE]
                batch = images.subset(chosen).to_tensor()
                made = torch.stack(
                    [_made(batch[i], batch[i - 1], start + i, generator) for i in range(batch.shape[0])]
                ).to(self.device)
                with self.scoring_precision():
                    answers = self._answers(self.extractor(made), self._size)
                found.append(Standard(self.centre, self.spread)(scores_of_witnesses(answers)))
                if advance is not None:
                    advance(len(chosen))
        return torch.cat(found)

    def _go_on_without(self, name: WitnessName, error: Exception) -> None:
        """Leave a witness out that failed, and say so.

        Raises:
            RuntimeError: it was not asked to go on, or nobody is left.
        """
        what = f"the witness {name} ({_WORDS[name]}) failed: {error}"
        rest = tuple(each for each in self.names if each != name)
        if not self.config.keep_going or not rest:
            hint = "; the others go on without it with keep_going=True (--keep-going)" if rest else ""
            raise RuntimeError(f"ensemble: {what}{hint}") from error
        self._failures = (*self._failures, f"{what}; the ensemble is {', '.join(rest)}")
        warnings.warn(f"ensemble: {self._failures[-1]}", RuntimeWarning, stacklevel=2)
        self.config = self.config.model_copy(update={"witnesses": rest})
        del self.witnesses[name]
        self._make_scale()

    @property
    def notes(self) -> tuple[str, ...]:
        """Which witnesses failed, and who is left."""
        return self._failures

    def _share(self) -> None:
        """Have every witness read its levels of the one pass, which is made once a fit for each part."""
        self._passes: dict[ImageCollection, FeatureDataset] = {}
        for name, witness in zip(self.names, self._members(), strict=True):
            pooling = _POOLING if name == "whole" else None
            witness.read_from(SharedReader(self._pass, self._levels_of(name), pooling))

    def _pass(self, images: ImageCollection, progress: Progress | None) -> FeatureDataset:
        if images not in self._passes:
            self._passes[images] = self.features_of(images, progress)
        return self._passes[images]

    # Scoring ------------------------------------------------------------------------------------------------------

    def score_maps(self, maps: tuple[Tensor, ...], size: tuple[int, int]) -> Scores:
        """Merged scores `[B]` and weighted mean of maps `[B, H, W]`; what each witness adds is `evidence`."""
        answers = self._answers(maps, size)
        evidence = self.weights * loudness(Standard(self.centre, self.spread)(scores_of_witnesses(answers)))
        return Scores(evidence.sum(dim=1), self._merged_map(answers), evidence)

    def _merged_map(self, answers: Sequence[Scores]) -> Tensor | None:
        heats = [
            self.weights[i] * (answer.map - self.map_centre[i]) / self.map_spread[i]
            for i, answer in enumerate(answers)
            if answer.map is not None
        ]
        return torch.stack(heats).sum(dim=0) if heats else None

    def _answers(self, maps: tuple[Tensor, ...], size: tuple[int, int]) -> list[Scores]:
        return [
            witness.score_maps(tuple(maps[i] for i in self._levels_of(name)), size)
            for name, witness in zip(self.names, self._members(), strict=True)
        ]

    @property
    def gives_maps(self) -> bool:
        """Where a witness of places, patches or positions is asked."""
        return any(name != "whole" for name in self.names)

    def _members(self) -> list[FeatureMethod]:
        return [cast(FeatureMethod, witness) for witness in self.witnesses.values()]

    def _levels_of(self, name: str) -> tuple[int, ...]:
        """Which of the shared maps a witness looks at."""
        levels = len(self.extractor.channels) - self.config.scales + 1
        if name == "whole":
            return tuple(range(levels - 1, len(self.extractor.channels)))
        # The finest level has three quarters of all positions: a Gaussian at each costs most there and tells least.
        return tuple(range(levels)) if name == "flow" else tuple(range(levels))[-2:]


def _witness(name: WitnessName, config: EnsembleConfig) -> FeatureMethod:
    """A method that reads the ensemble's maps: its own defaults, the ensemble's backbone, precision and seed."""
    shared: dict[str, Any] = {
        name: getattr(config, name) for name in ("backbone", "weights", "levels", "precision", "seed", "size")
    }
    if name == "whole":
        return EmbeddingFlow(**shared, pooling=_POOLING, couplings=0)
    shared |= {"image_score": config.image_score, "top_share": config.top_share}
    if name == "place":
        return PaDiM(**shared)
    if name == "patch":
        return PatchCore(**shared, memory_share=config.memory_share)
    return CFlow(**shared, epochs=config.flow_epochs)


def _made(image: Tensor, donor: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """The image with a made defect, kind by number, of a drawn size and contrast."""
    size, contrast = torch.rand(2, generator=generator).tolist()
    kind = DEFECT_KINDS[number % len(DEFECT_KINDS)]
    made = with_defect(
        image, kind, size=0.06 + 0.24 * size, contrast=0.3 + 0.7 * contrast, donor=donor, generator=generator
    )
    return made.image
