"""The contract of every method that wraps a deployed classifier."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dracones.images import ImageCollection
from dracones.methods.config import MethodConfig
from dracones.methods.guards.acceleration import foldable
from dracones.methods.guards.config import GuardConfig, treatment_of
from dracones.methods.guards.fingerprint import fingerprint
from dracones.methods.guards.formula import Formula
from dracones.methods.guards.identity import GuardExtras, check_fingerprint
from dracones.methods.guards.layers import FoundLayer
from dracones.methods.guards.loading import kind_of, load_classifier
from dracones.methods.guards.normalization import Normalization
from dracones.methods.guards.outputs import ClassifierOutputs, accuracy_of, check_finite
from dracones.methods.guards.probe import ClassifierProbe
from dracones.methods.guards.warning import warn_caller
from dracones.methods.learning import FitContext
from dracones.methods.method import FileExtras
from dracones.methods.scores import Scores
from dracones.training import TrainingConfig

GATHERING_BATCH = 64


class Guard(Formula):
    """Scores images by what a given classifier makes of them. The classifier is neither changed nor saved.

    A subclass is one `Formula`. Without a classifier it runs on arrays that were computed before: `fit_outputs`,
    `score_outputs`.

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
        updates = treatment_of(self.config, named)
        if self.config.mean is None and named.mean is not None:
            updates |= {"mean": named.mean, "std": named.std}
        if updates:
            self.config = self.config.model_copy(update=updates)
        return named.module

    def refuse_incomplete(self) -> None:
        """Refuse a guard that has no classifier to read."""
        _ = self.probe

    @property
    def scores_in_threads(self) -> bool:
        """Never: who knows what somebody else's classifier keeps between two lines; and a watched pass rewires it."""
        return False

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
