"""Many guards of one classifier over one pass of its features, as one table."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dracones.detectors.fitting import choose_preprocess
from dracones.images import ImageCollection, open_images
from dracones.methods import FitContext, method_class, method_names
from dracones.methods.guards.guard import Guard
from dracones.methods.guards.odin import Odin
from dracones.methods.guards.outputs import ClassifierOutputs, accuracy_of
from dracones.metrics import evaluate_scores
from dracones.training import Progress

Group = Literal["near", "far"]
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """One method against one set.

    Attributes:
        method: name.
        set: name of the anomalous set.
        group: ``near`` (like the training images) or ``far``.
        metrics: metric -> ``{"value", "low", "high"}``, see `dracones.metrics.evaluate_scores`.
    """

    method: str
    set: str
    group: Group
    metrics: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        rows: a row for each method and set.
        counts: images of each set, and of ``train`` and ``normal``.
        seconds: CPU seconds: ``shared passes``, then what each method took beyond them.
        tuning: how ODIN's settings were chosen, where it ran.
        failed: method -> why it could not run on this classifier.
        accuracy: of the classifier on ``train`` and ``normal``, where they have labels.
    """

    rows: tuple[Row, ...]
    counts: Mapping[str, int]
    seconds: Mapping[str, float]
    tuning: str | None = None
    failed: Mapping[str, str] = field(default_factory=dict)
    accuracy: Mapping[str, float] = field(default_factory=dict)

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods that ran, best mean AUROC first."""
        names = dict.fromkeys(row.method for row in self.rows)
        return tuple(sorted(names, key=lambda name: -self._all_means("auroc", name)))

    def mean(self, metric: str, method: str, group: Group) -> float | None:
        """Mean of a metric over the sets of a group; ``None`` for an empty group."""
        values = [r.metrics[metric]["value"] for r in self.rows if r.method == method and r.group == group]
        return float(np.mean(values)) if values else None

    def _all_means(self, metric: str, method: str) -> float:
        return float(np.mean([r.metrics[metric]["value"] for r in self.rows if r.method == method]))

    def to_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        return {
            "rows": [
                {
                    "method": r.method,
                    "set": r.set,
                    "group": r.group,
                    "metrics": {k: dict(v) for k, v in r.metrics.items()},
                }
                for r in self.rows
            ],
            "means": {
                method: {
                    group: {
                        metric: self.mean(metric, method, group)
                        for metric in ("auroc", "aupr_in", "aupr_out", "fpr_at_tpr95", "detection_error")
                    }
                    for group in ("near", "far")
                    if any(row.group == group for row in self.rows)
                }
                for method in self.methods
            },
            "counts": dict(self.counts),
            "cpu_seconds": dict(self.seconds),
            "tuning": self.tuning,
            "failed": dict(self.failed),
            "accuracy": dict(self.accuracy),
        }


def classifier_methods() -> tuple[str, ...]:
    """Names of all methods that guard a classifier."""
    return tuple(name for name in method_names() if method_class(name).info.family == "classifier")


def compare(
    classifier: nn.Module | str,
    *,
    train: Any,
    normal: Any,
    near: Mapping[str, Any] | None = None,
    far: Mapping[str, Any] | None = None,
    methods: str | Iterable[str] = "all",
    labels: Any = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    progress: Progress | None = None,
    **shared: Any,
) -> Comparison:
    """Evaluate many guards of one classifier: each image goes through it once for all of them (ODIN runs it again).

    The preprocessing is chosen on ``train`` and the same for every set: resizing one side alone would give the sets
    away by their resampling.

    Args:
        classifier: module, or text that names it (see `GuardConfig.classifier`).
        train: normal images with labels to fit on.
        normal: normal images the classifier was not trained on.
        near: name -> anomalous images that resemble the normal ones.
        far: name -> other anomalous images.
        methods: names, or ``all``.
        labels: of ``train``, where the data does not carry them.
        options: method -> its own options.
        progress: is told how far the passes are.
        shared: options of every guard (``mean``, ``std``, ``layer``, ``classifier_weights``, ...).

    Raises:
        ValueError: no anomalous set, a set named twice, or an unknown method (the nearest are named).

    >>> import torch
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> x = torch.rand(40, 1, 8, 8)
    >>> found = compare(net, train=x, normal=x, far={"noise": 1 - x}, methods=["msp", "energy"])
    >>> sorted(found.methods), found.counts["noise"]
    (['energy', 'msp'], 40)
    """
    groups = _groups(near or {}, far or {})
    names = classifier_methods() if methods == "all" else _known([methods] if isinstance(methods, str) else methods)
    guards = _guards(classifier, names, options or {}, shared)
    reader = next((guard for guard in guards.values() if guard.reads_features), next(iter(guards.values())))
    opened = open_images(train, labels=labels)
    train_images = opened.with_preprocess(choose_preprocess(reader.info, reader.config, opened))
    collections = {
        name: open_images(data).with_preprocess(train_images.preprocess)
        for name, data in {"normal": normal, **(near or {}), **(far or {})}.items()
    }
    clock = _Clock()
    fitted = _fit(guards, reader, train_images, clock)
    scores = _score_sets(fitted, reader, collections, clock, progress)
    odin = guards.get("odin")
    return Comparison(
        rows=tuple(
            Row(method, name, group, _judge(of_set["normal"], of_set[name]))
            for method, of_set in scores.items()
            for name, group in groups.items()
        ),
        counts={
            "train": len(train_images) - len(train_images.skipped),
            **{name: len(of_one) for name, of_one in next(iter(scores.values())).items()},
        },
        seconds=clock.seconds,
        tuning=str(odin.tuning) if isinstance(odin, Odin) and "odin" in scores else None,
        failed=clock.failed,
        accuracy={name: clock.accuracy[name] for name in ("train", "normal") if name in clock.accuracy},
    )


class _Clock:
    """CPU seconds by what they went into, what failed, and how often the classifier is right."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.failed: dict[str, str] = {}
        self.accuracy: dict[str, float] = {}

    def judge(self, name: str, outputs: ClassifierOutputs, labels: torch.Tensor | None) -> None:
        """Note the accuracy on a set, where its images have labels."""
        found = accuracy_of(outputs, labels)
        if found is not None:
            self.accuracy[name] = found

    def measure(self, name: str, work: Any) -> Any:
        started = time.process_time()
        try:
            return work()
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - started


def _groups(near: Mapping[str, Any], far: Mapping[str, Any]) -> dict[str, Group]:
    if not near and not far:
        raise ValueError("give at least one anomalous set, near={'name': data} or far={'name': data}")
    twice = (set(near) & set(far)) | ({"normal", "train"} & (set(near) | set(far)))
    if twice:
        raise ValueError(f"set names must differ from each other and from 'normal' and 'train': {sorted(twice)}")
    return {**dict.fromkeys(near, "near"), **dict.fromkeys(far, "far")}


def _known(names: Iterable[str]) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(names))
    for name in chosen:
        if not issubclass(method_class(name), Guard):
            raise ValueError(
                f"{name} does not guard a classifier, compare takes {', '.join(classifier_methods())}; evaluate "
                "a saved "
                "detector of another kind with `dracones evaluate`"
            )
    if not chosen:
        raise ValueError("no method to compare")
    return chosen


def _guards(
    classifier: nn.Module | str,
    names: tuple[str, ...],
    options: Mapping[str, Mapping[str, Any]],
    shared: Mapping[str, Any],
) -> dict[str, Guard]:
    strangers = set(options) - set(names)
    if strangers:
        raise ValueError(f"options for {sorted(strangers)}, which are not compared; compared are {', '.join(names)}")
    guards: dict[str, Guard] = {}
    held = dict(shared)
    for name in names:
        guard = cast(type[Guard], method_class(name))(classifier=classifier, **held, **options.get(name, {}))
        if isinstance(classifier, str):
            # Read once; the others get the module, and the normalisation that came with its name.
            classifier = guard.classifier
            held.pop("classifier_weights", None)
            held |= {"mean": guard.config.mean, "std": guard.config.std, "size": guard.config.size}
        guards[name] = guard
    return guards


def _fit(guards: Mapping[str, Guard], reader: Guard, images: ImageCollection, clock: _Clock) -> dict[str, Guard]:
    """Fit all from one pass; a method that this classifier cannot serve is left out, with its reason."""
    learning = any(guard.has_formula and guard.learns for guard in guards.values())
    outputs, labels = clock.measure("shared passes", lambda: reader.gather(images)) if learning else (None, None)
    if outputs is not None:
        reader.judge_classifier(outputs, labels)
        clock.judge("train", outputs, labels)
    everything = FitContext(images, images.subset([]), torch.Generator().manual_seed(0), None)
    fitted = {}
    for name, guard in guards.items():
        try:
            if not guard.has_formula:
                clock.measure(name, lambda g=guard: g.fit_statistics(everything))
            elif outputs is not None:
                clock.measure(name, lambda g=guard: _learn(g, outputs, labels, reader))
        except ValueError as error:
            clock.failed[name] = str(error)
            continue
        fitted[name] = guard
    if not fitted:
        raise ValueError("no method could run:\n" + "\n".join(f"{n}: {r}" for n, r in clock.failed.items()))
    return fitted


def _learn(guard: Guard, outputs: ClassifierOutputs, labels: torch.Tensor | None, reader: Guard) -> None:
    guard.fit_outputs(outputs.logits, outputs.features, labels=labels, head=reader.probe.head)


def _score_sets(
    guards: Mapping[str, Guard],
    reader: Guard,
    collections: Mapping[str, ImageCollection],
    clock: _Clock,
    progress: Progress | None,
) -> dict[str, dict[str, Scores]]:
    """Method -> set -> scores; each set goes through the classifier once."""
    scores: dict[str, dict[str, Scores]] = {name: {} for name in guards}
    if progress is not None:
        progress.start(sum(map(len, collections.values())), "comparing")
    for name, images in collections.items():
        outputs, labels = clock.measure("shared passes", lambda images=images: reader.gather(images))
        clock.judge(name, outputs, labels)
        for method, guard in guards.items():
            scores[method][name] = clock.measure(method, lambda g=guard, o=outputs, i=images: _score(g, o, i))
        if progress is not None:
            progress.advance(len(images))
    if progress is not None:
        progress.finish()
    return scores


def _score(guard: Guard, outputs: ClassifierOutputs, images: ImageCollection) -> Scores:
    if guard.has_formula:
        return guard.score_outputs(outputs.logits, outputs.features).cpu().numpy()
    return np.concatenate([guard(batch.images).image.cpu().numpy() for batch in images.batches(128)])


def _judge(normal: Scores, anomalous: Scores) -> dict[str, dict[str, float]]:
    labels = np.repeat([0, 1], [len(normal), len(anomalous)])
    return evaluate_scores(np.concatenate([normal, anomalous]), labels)
