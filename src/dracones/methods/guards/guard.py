"""The contract of every method that wraps a deployed classifier."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from dracones.images import ImageCollection
from dracones.methods.config import MethodConfig
from dracones.methods.guards.acceleration import foldable
from dracones.methods.guards.fingerprint import fingerprint
from dracones.methods.guards.layers import FoundLayer
from dracones.methods.guards.loading import NamedClassifier, kind_of, load_classifier
from dracones.methods.guards.normalization import Normalization
from dracones.methods.guards.outputs import (
    ClassifierOutputs,
    LinearHead,
    accuracy_of,
    check_finite,
    check_head,
    check_labels,
)
from dracones.methods.guards.pooling import Pool
from dracones.methods.guards.probe import ClassifierProbe
from dracones.methods.guards.warning import warn_caller
from dracones.methods.learning import FitContext
from dracones.methods.method import FileExtras, Method
from dracones.methods.scores import Scores
from dracones.training import TrainingConfig

GATHERING_BATCH = 64

Input = Literal["logits", "features", "labels", "head"]


class GuardConfig(MethodConfig):
    """Options of every guard.

    ``classifier`` is set by `dracones.create` where a text names it; a module is passed to ``create`` itself.
    """

    classifier: str | None = Field(
        None,
        description="timm name (with classifier_weights), module:function, file.py:function, or file of torch.export",
    )
    classifier_weights: str | None = Field(
        None, description="local state dict, safetensors or torch; not kept in a file"
    )
    mean: tuple[float, ...] | None = Field(
        None, description="per-channel mean subtracted before the classifier; none if it normalises by itself"
    )
    std: tuple[float, ...] | None = Field(None, description="per-channel standard deviation divided by, beside mean")
    layer: str | None = Field(
        None, description="layer whose output is the features; what goes into the layer that gives the logits if none"
    )
    accelerate: bool = Field(
        False,
        description="score with a faster copy: BatchNorm folded, channels last; the same to rounding",
    )
    output: str | int | None = Field(
        None, description="key, field or position of the logits, where the classifier returns several"
    )
    validation_share: float = Field(
        0.0, ge=0, lt=0.9, description="share of the normal images kept from fitting; ODIN chooses epsilon on it"
    )

    @model_validator(mode="after")
    def _both_or_neither(self) -> "GuardConfig":
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together: give both or neither")
        return self


class ClassifierIdentity(BaseModel):
    """Which classifier a guard was fitted on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str = Field(min_length=12, max_length=200, description="of its weights; see `fingerprint`")
    type: str = Field(max_length=200, description="name of its class")


class ReadLayer(BaseModel):
    """Where the features were read while fitting, so that scoring reads the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[str, ...] = Field(min_length=1, max_length=1000)
    side: Literal["input", "output"]
    pool: Pool


class GuardExtras(FileExtras):
    """What a guard's file says of the classifier, which it does not hold."""

    classifier: ClassifierIdentity
    layer: ReadLayer | None = None
    accuracy: float | None = Field(None, ge=0, le=1)


class Guard(Method):
    """Scores images by what a given classifier makes of them. The classifier is neither changed nor saved.

    A subclass is one formula. It

    - names in ``reads`` what it needs: ``logits``, ``features``, and while fitting ``labels`` and ``head`` (the
      classifier's last linear layer);
    - keeps all that it learns in buffers, which are created empty;
    - overrides `formula`, a pure graph, and `learn` where there is something to learn.

    Without a classifier it runs on arrays that were computed before: `fit_outputs`, `score_outputs`.

    Calibrate on images that the classifier was **not** trained on: it is surer of its own training images than of new
    ones, so a threshold set on those gives more false alarms than it promises.

    Args:
        config: options, where a file holds them.
        classifier: the module, or the text that names it; see `GuardConfig.classifier`.
        classifier_weights: its local weight file, where a text names it. A path that a file names is followed
            only where ``classifier`` is given as text.
        options: see ``Config``.
    """

    Config: ClassVar[type[MethodConfig]] = GuardConfig
    Extras: ClassVar[type[FileExtras]] = GuardExtras
    reads: ClassVar[tuple[Input, ...]] = ("logits",)
    config: GuardConfig

    def __init__(
        self,
        config: MethodConfig | None = None,
        *,
        classifier: nn.Module | str | None = None,
        classifier_weights: str | None = None,
        **options: Any,
    ) -> None:
        module = None if isinstance(classifier, str) else classifier
        if config is None:
            named = {"classifier": classifier if isinstance(classifier, str) else None}
            options |= {key: value for key, value in named.items() if value is not None}
            if classifier_weights is not None:
                options["classifier_weights"] = str(classifier_weights)
        elif isinstance(classifier, str):
            config = config.model_copy(update={"classifier": classifier})
        super().__init__(config, **options)
        if module is None and self.config.classifier is not None:
            # A file may name code to import or any path: both are followed at the caller's own word only.
            trusted = config is None or isinstance(classifier, str)
            weights = classifier_weights or (self.config.classifier_weights if trusted else None)
            module = self._load_named(self.config.classifier, weights, trusted)
        # In a tuple, not as a submodule: the classifier is neither saved nor moved nor switched by the guard.
        self._held = () if module is None else (self.probe_of(module),)
        self.classifier_fingerprint: str | None = None
        self.accuracy: float | None = None

    def probe_of(self, module: nn.Module) -> ClassifierProbe:
        """A classifier, read as this guard reads."""
        normalization = None
        if self.config.mean is not None and self.config.std is not None:
            normalization = Normalization(self.config.mean, self.config.std)
        return ClassifierProbe(
            module,
            layer=self.config.layer,
            output=self.config.output,
            normalization=normalization,
            read_features=self.reads_features,
            accelerate=self.config.accelerate,
        )

    def _load_named(self, name: str, weights: str | None, trusted: bool) -> nn.Module:
        if not trusted and kind_of(name) != "timm":
            raise ValueError(
                f"this guard's file names its classifier as {name!r}, which would run code or open a program; pass it "
                f"yourself if you trust it: dracones.load(path, classifier={name!r}), --classifier on the command line"
            )
        if not trusted and weights is None:
            raise ValueError(
                f"this guard's file names its classifier ({name}) and where its weights were, which is not followed "
                f"unasked: dracones.load(path, classifier={name!r}) follows it if you trust the file, with "
                "classifier_weights=... they are read from elsewhere; --classifier on the command line"
            )
        named = load_classifier(name, weights)
        updates = _treatment(self.config, named)
        if self.config.mean is None and named.mean is not None:
            updates |= {"mean": named.mean, "std": named.std}
        if updates:
            self.config = self.config.model_copy(update=updates)
        return named.module

    def refuse_incomplete(self) -> None:
        """Refuse a guard that has no classifier to read."""
        _ = self.probe

    # What a method gives ----------------------------------------------------------------------------------------

    def formula(self, logits: Tensor, features: Tensor | None) -> Tensor:  # noqa: ARG002
        """Scores ``[B]`` of float32 logits ``[B, K]`` and features ``[B, F]``: a pure graph of tensors."""
        raise ValueError(f"{self.info.name} runs the classifier again for every image; call score(images)")

    def learn(self, outputs: ClassifierOutputs, labels: Tensor | None, head: LinearHead | None) -> None:
        """Learn; the arguments are checked. A guard that learns nothing leaves this alone."""

    @property
    def learns(self) -> bool:
        """Whether `fit_outputs` must be called before scores mean anything."""
        return type(self).learn is not Guard.learn

    @property
    def scores_in_threads(self) -> bool:
        """Never: who knows what somebody else's classifier keeps between two lines; and a watched pass rewires it."""
        return False

    @property
    def reads_features(self) -> bool:
        """Whether penultimate features are needed."""
        return "features" in self.reads

    @property
    def has_formula(self) -> bool:
        """Whether scores follow from outputs alone, without the network."""
        return type(self).formula is not Guard.formula

    # On outputs gathered before ---------------------------------------------------------------------------------

    @torch.no_grad()
    def fit_outputs(
        self,
        logits: Tensor,
        features: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        head: LinearHead | None = None,
    ) -> Self:
        """Learn from outputs of normal images.

        Args:
            logits: ``[N, K]``.
            features: ``[N, F]``, for the guards that read them.
            labels: ``[N]`` class labels, for the guards that read them.
            head: the classifier's last layer, for the guards that read it.

        Raises:
            ValueError: something that the guard reads is absent or does not fit.
        """
        if not self.learns:
            return self
        who, outputs = self.info.name, ClassifierOutputs(logits, features)
        if self.reads_features:
            outputs.needed_features(who)
        if "labels" in self.reads:
            labels = check_labels(labels, len(outputs), logits.shape[1], who=who)
        if "head" in self.reads:
            check_head(head, outputs, who)
        self.learn(outputs, labels, head)
        return self

    def score_outputs(self, logits: Tensor, features: Tensor | None = None) -> Tensor:
        """Scores ``[B]`` of outputs gathered before, larger = more anomalous; a pure graph.

        Raises:
            ValueError: features are needed and absent, or the method needs the network itself.
            RuntimeError: not fitted.
        """
        # Looked up at every request: listing all buffers costs as much as many a formula.
        buffers = [buffer for buffer in self._buffers.values() if buffer is not None]
        if self.learns and any(0 in buffer.shape for buffer in buffers):
            raise RuntimeError(f"{self.info.name} must be fitted before it can score")
        if self.reads_features:
            features = ClassifierOutputs(logits, features).needed_features(self.info.name)
        device = buffers[0].device if buffers else logits.device
        with torch.no_grad():
            return self.formula(logits.to(device), None if features is None else features.to(device))

    # The contract -----------------------------------------------------------------------------------------------

    @property
    def probe(self) -> ClassifierProbe:
        """The classifier as it is read.

        Raises:
            ValueError: none was given.
        """
        if not self._held:
            raise ValueError(
                f"{self.info.name} guards a classifier: pass classifier=model, or name one "
                "(classifier='resnet18' with classifier_weights=..., 'module:function', or a file of torch.export)"
            )
        return self._held[0]

    @property
    def classifier(self) -> nn.Module:
        """The guarded classifier, in the mode it was found in."""
        return self.probe.classifier

    @property
    def device(self) -> torch.device:
        """Where the guard's tensors are; the classifier's device where it holds none."""
        held = next(self.buffers(), None)
        return (
            self.probe.device if held is None and self._held else torch.device("cpu") if held is None else held.device
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the fit should know: the classifier's accuracy, a layer that was guessed, a faster way."""
        found = self.probe.found if self._held else None
        told = [] if found is None or not found.note else [found.note]
        if self.accuracy is not None:
            told.append(f"the classifier is right on {self.accuracy:.1%} of the labelled images it was fitted with")
        folded = foldable(self.classifier) if self._held and not self.config.accelerate else 0
        if folded:
            told.append(
                f"accelerate=true scores with a copy whose BatchNorms ({folded}) are folded into the convolutions: the "
                "same scores to rounding, in less time on a CPU"
            )
        return tuple(told)

    def training_config(self) -> TrainingConfig | None:
        """Nothing is trained."""
        return None

    def build(self, image_shape: tuple[int, int, int]) -> None:
        """Nothing depends on the images' shape but what the classifier accepts."""

    def fit_statistics(self, context: FitContext) -> None:
        """One pass over the training images; where nothing is learnt, a first batch that checks the classifier."""
        probe = self.probe
        self.classifier_fingerprint = fingerprint(probe.classifier)
        images = context.train
        if not (self.has_formula and self.learns):
            images = images.subset(range(min(len(images), GATHERING_BATCH)))
        outputs, labels = self.gather(images)
        self.judge_classifier(outputs, labels)
        if self.has_formula:
            self.fit_outputs(outputs.logits, outputs.features, labels=labels, head=probe.head).to(probe.device)

    def judge_classifier(self, outputs: ClassifierOutputs, labels: Tensor | None) -> None:
        """Say the classifier's accuracy where labels are there, and which layer was guessed.

        Warns:
            UserWarning: it is hardly right more often than by chance, or no layer gives the logits.
        """
        found, classes = self.probe.found, outputs.logits.shape[1]
        if found is not None and found.note:
            warn_caller(f"{self.info.name}: {found.note}")
        self.accuracy = accuracy_of(outputs, labels)
        if self.accuracy is not None and self.accuracy < min(0.6, 2 / classes):
            warn_caller(
                f"the classifier is right on {self.accuracy:.1%} of the labelled normal images ({classes} classes): "
                "are these its weights, its labels' order, and the mean and std it wants?"
            )

    def gather(self, images: ImageCollection) -> tuple[ClassifierOutputs, Tensor | None]:
        """The classifier's outputs for a collection, on the CPU, with its labels where it has any."""
        parts, indices = [], []
        for batch in images.batches(GATHERING_BATCH):
            outputs = self.probe(batch.images)
            features = None if outputs.features is None else outputs.features.cpu()
            parts.append(ClassifierOutputs(outputs.logits.cpu(), features))
            indices.append(torch.as_tensor(batch.indices))
        labels = images.labels
        chosen = None if labels is None else torch.as_tensor(labels)[torch.cat(indices)]
        return ClassifierOutputs.join(parts), chosen

    def forward(self, images: Tensor, host: Tensor | None = None) -> Scores:  # noqa: ARG002
        """One pass of the classifier, one formula."""
        return Scores(self.logits_and_scores(images, self.probe)[1])

    def logits_and_scores(self, images: Tensor, probe: ClassifierProbe) -> tuple[Tensor, Tensor]:
        """Logits ``[B, K]`` and scores ``[B]`` from one pass of the probe: a pure graph.

        Where logits are not finite the score is NaN, which whoever called refuses.
        """
        outputs = probe.read(images)
        scores = self.score_outputs(outputs.logits, outputs.features)
        return outputs.logits, scores + (0 * outputs.logits.sum(dim=1)).to(scores)

    def explain_nan(self, images: Tensor) -> None:
        """Say what is wrong with the classifier's answer for these images, if that is what it is."""
        check_finite(self.probe.read(images).logits)

    # The file ---------------------------------------------------------------------------------------------------

    def header_extras(self) -> dict[str, Any]:
        """The classifier's identity, not its weights; and where its features are read."""
        probe = self.probe
        extras: dict[str, Any] = {
            "classifier": {"fingerprint": self.classifier_fingerprint, "type": type(probe.classifier).__name__}
        }
        if probe.found is not None:
            extras["layer"] = {"names": list(probe.found.names), "side": probe.found.side, "pool": probe.found.pool}
        if self.accuracy is not None:
            extras["accuracy"] = self.accuracy
        return extras

    def restore(self, extras: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
        """Refuse a classifier other than the one the guard was fitted on, then read the state."""
        stored, layer = extras["classifier"], extras.get("layer")
        check_fingerprint(self.classifier, stored["fingerprint"], stored["type"])
        self.classifier_fingerprint = stored["fingerprint"]
        self.accuracy = extras.get("accuracy")
        if layer is not None:
            self._refuse_absent(layer["names"])
            self.probe.know(FoundLayer(tuple(layer["names"]), layer["side"], layer["pool"]))
        super().restore(extras, state)

    def _refuse_absent(self, names: list[str]) -> None:
        known = dict(self.classifier.named_modules())
        absent = [name for name in names if name not in known]
        if absent and not self.config.accelerate:
            raise ValueError(f"the guard reads layer {absent[0]!r}, which this classifier does not have")


def _treatment(config: GuardConfig, named: NamedClassifier) -> dict[str, Any]:
    """How timm brings images to this network's size, unless a size was asked for; all of it is written down."""
    if config.size is not None or named.size is None:
        return {}
    asked = config.model_fields_set
    wanted = {"size": named.size, "crop": named.crop, "interpolation": named.interpolation, "fit": named.fit}
    return {key: value for key, value in wanted.items() if value is not None and key not in asked}


def check_fingerprint(classifier: nn.Module, expected: str, kind: str) -> None:
    """Refuse a classifier whose weights are not those the guard was fitted on.

    Raises:
        ValueError: the fingerprints differ (both are shown, shortened).
    """
    got = fingerprint(classifier)
    if got != expected:
        raise ValueError(
            f"the guard was fitted on a {kind} with weights {expected[:12]}, this {type(classifier).__name__} has "
            f"{got[:12]}: its scores and threshold would mean nothing; load the same weights (and type: half precision "
            "counts as other weights), or fit again"
        )
