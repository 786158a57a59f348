"""Every analysis that a model supports, on one pair of sides, and the verdict in words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dracones.anatomy.co_adaptation import co_adaptation
from dracones.anatomy.complexity import complexity
from dracones.anatomy.couplings import couplings
from dracones.anatomy.decomposition import decompose
from dracones.anatomy.ensembles import ensemble
from dracones.anatomy.finding import Finding
from dracones.anatomy.graying import graying
from dracones.anatomy.inductive_bias import inductive_bias
from dracones.anatomy.latents import latent_images
from dracones.anatomy.needs import UnsupportedError
from dracones.anatomy.negative_training import negative_training
from dracones.anatomy.repairs import Repairs, repairs
from dracones.anatomy.second_order import second_order
from dracones.anatomy.sensitivity import Sensitivity, sensitivity
from dracones.anatomy.sides import Sides, evaluating, open_sides
from dracones.anatomy.variants import TRAINING
from dracones.anatomy.verdict import Verdict, judge
from dracones.densities import Density
from dracones.detectors import Detector
from dracones.images import Preprocess
from dracones.methods.learnt import Learnt, learnt
from dracones.methods.likelihood import Likelihood
from dracones.report.plain import plain
from dracones.training import Progress, Silent, TrainingConfig

_HEARD = 200
"""Images of each set whose loudest witness is asked for: it is a word, not a figure."""


@dataclass(frozen=True)
class Explanation:
    """All findings on one model, in the order in which a page tells them."""

    model: str
    verdict: Verdict
    findings: Mapping[str, Finding]
    refused: Mapping[str, str]
    """Analysis to the reason why this model, or these images, do not support it."""
    counts: Mapping[str, int]
    """Images of each set."""
    sides: Sides = field(repr=False)
    learnt: Learnt
    """What the density makes of the normal images; a verdict needs it to have learnt something."""
    notes: tuple[str, ...] = ()
    """What was done to the images before."""

    def to_json(self) -> dict[str, Any]:
        """Every number of every finding, as plain values."""
        return {
            "model": self.model,
            "verdict": plain(self.verdict),
            "learnt": {**plain(self.learnt), "passed": self.learnt.passed},
            "images": dict(self.counts),
            "notes": list(self.notes),
            "findings": {name: found.to_json() for name, found in self.findings.items()},
            "refused": dict(self.refused),
        }


def explain(
    model: Detector | Density,
    normal: Any,
    others: Mapping[str, Any],
    *,
    count: int | None = 1000,
    against: str | None = None,
    members: Sequence[Detector | Density] = (),
    resize: bool = False,
    thorough: bool = False,
    training: TrainingConfig | None = None,
    train: Any = None,
    train_steps: int | None = None,
    skip: Sequence[str] = (),
    seed: int = 0,
    batch_size: int = 128,
    progress: Progress | None = None,
) -> Explanation:
    """Say whether a model's likelihood can be trusted on these images, why not, and which rule to use instead.

    Args:
        model: a fitted likelihood detector (glow, realnvp, vae, pixelcnn) or a density.
        normal: images that belong, not trained on; whatever `dracones.images.open_images` takes.
        others: name to images that do not belong.
        count: at most so many images of each set, drawn by ``seed``; None for all.
        against: a set of the others to train a copy against (negative training); left out if not given.
        members: further models trained alike, for the ensemble; a detector of several members brings its own.
        resize: bring images of another size or other channels to the model's; refused otherwise.
        thorough: also what takes a Jacobian an image.
        training: of the negative training.
        train: images like the normal ones to train RealNVPs of every mask and bottleneck on (`inductive_bias`); left
            out if not given.
        train_steps: of each of these at most; by default until held-out images gain no more, hours on a CPU.
        skip: analyses to leave out, by name (see `analyses`; the rules and the terms are always there).
        seed: of all draws.
        batch_size: images at a time.
        progress: is told of each analysis.

    Raises:
        TypeError: a model without a likelihood of images.
        ValueError: images that do not fit, an unknown name in ``skip`` or ``against``.

    Example:
        >>> import torch
        >>> from dracones import densities
        >>> density = densities.create("glow", image_shape=(1, 8, 8), steps=1, hidden=4)
        >>> few = ("couplings", "second order", "checks", "latents")
        >>> found = explain(density, torch.rand(40, 1, 8, 8), {"black": torch.zeros(20, 1, 8, 8)}, skip=few)
        >>> found.verdict.level, sorted(found.refused)
        ('good', ['co-adaptation'])
    """
    unknown = [name for name in skip if name not in analyses()]
    if unknown:
        raise ValueError(f"skip: unknown analyses {unknown}; known are {', '.join(analyses())}")
    if against is not None and against not in others:
        raise ValueError(f"against={against!r} is not one of the other sets, {', '.join(others)}")
    density = density_of(model)
    sides, notes = _open(model, density, normal, others, count=count, seed=seed, resize=resize)
    shown = None
    if train is not None:
        shown = _open(model, density, train, {}, count=None, seed=seed, resize=resize)[0].normal
    work = _Work(
        model, density, sides, against, tuple(members), thorough, training, shown, train_steps, seed, batch_size
    )
    refused: dict[str, str] = {}
    progress = progress or Silent()
    todo = [name for name in _OPTIONAL if name not in skip]
    progress.start(len(todo) + 2, "analyses")
    try:
        with evaluating(density):
            terms = decompose(density, sides.normal, sides.others, batch_size=batch_size)
            progress.advance(1)
            rules = _rules(work)
            progress.advance(1)
            findings: dict[str, Finding] = {"rules": rules, "terms": terms}
            for name in todo:
                try:
                    found = _OPTIONAL[name](work)
                except (UnsupportedError, ValueError) as error:
                    refused[name] = str(error)
                else:
                    findings |= {} if found is None else {name: found}
                progress.advance(1)
    finally:
        progress.finish()
    checks = findings.get("checks")
    curves = model.provenance.get("training", ()) if isinstance(model, Detector) else ()
    state = learnt(density, sides.normal, training=curves, batch_size=batch_size)
    verdict = judge(terms, rules, checks if isinstance(checks, Sensitivity) else None, state)
    counts = {name: len(images) for name, images in sides.all.items()}
    return Explanation(_name_of(model), verdict, findings, refused, counts, sides, state, notes)


def analyses() -> tuple[str, ...]:
    """Names of all analyses, in the order of a page.

    >>> analyses()[:3]
    ('rules', 'terms', 'complexity')
    """
    return ("rules", "terms", *_OPTIONAL)


def density_of(model: Detector | Density) -> Density:
    """The density inside a likelihood detector.

    Raises:
        TypeError: a model without one; the message names those that have one.
    """
    likelihood = _likelihood_of(model)
    inner = model if isinstance(model, Density) else None if likelihood is None else likelihood.density
    if inner is None:
        raise UnsupportedError(
            f"explain looks inside a likelihood of images; {_name_of(model)} has none. "
            "Models that have one: glow, realnvp, vae, pixelcnn"
        )
    return inner


def _likelihood_of(model: Detector | Density) -> Likelihood | None:
    return model.method if isinstance(model, Detector) and isinstance(model.method, Likelihood) else None


@dataclass(frozen=True)
class _Work:
    """What the analyses are called with."""

    model: Detector | Density
    density: Density
    sides: Sides
    against: str | None
    members: tuple[Detector | Density, ...]
    thorough: bool
    training: TrainingConfig | None
    train: Tensor | None
    train_steps: int | None
    seed: int
    batch_size: int

    @property
    def ensemble(self) -> list[Density]:
        """All members, this model's own first; one if there is no ensemble."""
        likelihood = _likelihood_of(self.model)
        own = [] if likelihood is None else [each for each in likelihood.others if isinstance(each, Density)]
        return [self.density, *own, *(density_of(member) for member in self.members)]


def _rules(work: _Work) -> Repairs:
    likelihood = _likelihood_of(work.model)
    own, fitted_on = None, None
    if isinstance(work.model, Detector):
        detector = work.model
        rule = getattr(detector.config, "rule", "its rule")
        own = (f"this model, as saved ({rule})", lambda images: detector.score(images.to(detector.device)).image)
        parts = detector.provenance.get("images", {})
        fitted_on = parts.get("validation") or parts.get("train")
    found = repairs(
        work.density,
        work.sides.normal,
        work.sides.others,
        background=None if likelihood is None else likelihood.background,
        members=work.ensemble,
        own=own,
        own_fitted_on=fitted_on,
        thorough=work.thorough,
        batch_size=work.batch_size,
    )
    return replace(found, loudest=_loudest(work)) if isinstance(work.model, Detector) else found


def _loudest(work: _Work) -> dict[str, str]:
    """The witness of the saved rule that speaks loudest against most images of each set, where there are several."""
    detector = work.model
    found: dict[str, str] = {}
    if not isinstance(detector, Detector) or not detector.method.voices:
        return found
    for name, images in work.sides.others.items():
        parts = images[:_HEARD].split(work.batch_size)
        with torch.no_grad():
            said = [detector.score(part.to(detector.device)).evidence for part in parts]
        evidence = torch.cat([each for each in said if each is not None])
        found[name] = detector.method.voices[int(evidence.argmax(dim=1).mode().values)]
    return found


def _ensemble(work: _Work) -> Finding | None:
    if len(work.ensemble) < 2:
        return None
    return ensemble(work.ensemble, work.sides.normal, work.sides.others, batch_size=work.batch_size)


def _negative(work: _Work) -> Finding | None:
    if work.against is None:
        return None
    return negative_training(
        work.density, work.sides.normal, work.sides.others, against=work.against, config=work.training
    )


def _inductive_bias(work: _Work) -> Finding | None:
    if work.train is None:
        return None
    config = TRAINING if work.train_steps is None else TRAINING.model_copy(update={"max_steps": work.train_steps})
    return inductive_bias(work.train, work.sides.normal, work.sides.others, config=config, batch_size=work.batch_size)


def _plainly(analysis: Callable[..., Finding]) -> Callable[[_Work], Finding]:
    return lambda work: analysis(work.density, work.sides.normal, work.sides.others)


_OPTIONAL: dict[str, Callable[[_Work], Finding | None]] = {
    "complexity": _plainly(complexity),
    "graying": _plainly(graying),
    "second order": _plainly(second_order),
    "latents": _plainly(latent_images),
    "couplings": _plainly(couplings),
    "co-adaptation": _plainly(co_adaptation),
    "ensemble": _ensemble,
    "negative training": _negative,
    "inductive bias": _inductive_bias,
    "checks": _plainly(sensitivity),
}


def _open(
    model: Detector | Density,
    density: Density,
    normal: Any,
    others: Mapping[str, Any],
    *,
    count: int | None,
    seed: int,
    resize: bool,
) -> tuple[Sides, tuple[str, ...]]:
    channels, height, width = density.image_shape
    treatment = model.preprocess if isinstance(model, Detector) else None
    if treatment is None:
        treatment = Preprocess(native_size=(height, width), native_channels=channels)
    notes: tuple[str, ...] = ()
    if resize and treatment.changes_nothing:
        treatment = Preprocess(size=(height, width), channels=channels)
        notes = (
            f"Images of another size or other channels were brought to the model's {height}×{width} with {channels} "
            "channel(s). Where that changed one side alone it leaves a trace: compare the filter check below.",
        )
    return open_sides(normal, others, preprocess=treatment, count=count, seed=seed), notes


def _name_of(model: Detector | Density) -> str:
    return model.info.name if isinstance(model, Detector) else type(model).__name__.lower()
