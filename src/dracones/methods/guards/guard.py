"""The contract of every method that wraps a deployed classifier."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from dracones.images import ImageCollection
from dracones.methods.config import MethodConfig
from dracones.methods.guards.fingerprint import fingerprint
from dracones.methods.guards.loading import kind_of, load_classifier
from dracones.methods.guards.normalization import Normalization
from dracones.methods.guards.outputs import ClassifierOutputs, LinearHead
from dracones.methods.guards.post_hoc import PostHocScore
from dracones.methods.guards.probe import ClassifierProbe
from dracones.methods.learning import FitContext
from dracones.methods.method import FileExtras, Method
from dracones.methods.scores import Scores
from dracones.training import TrainingConfig

GATHERING_BATCH = 64


class GuardConfig(MethodConfig):
    """Options of every guard.

    ``classifier`` is set by `dracones.create` where a text names it; a module is passed to ``create`` itself.
    """

    classifier: str | None = Field(
        None,
        description="timm name (with classifier_weights), module:function, file.py:function, or file of torch.export",
    )
    classifier_weights: str | None = Field(None, description="local state dict, safetensors or torch")
    mean: tuple[float, ...] | None = Field(
        None, description="per-channel mean subtracted before the classifier; none if it normalises by itself"
    )
    std: tuple[float, ...] | None = Field(None, description="per-channel standard deviation divided by, beside mean")
    layer: str | None = Field(
        None, description="layer whose output is the features; the last linear layer's input if none"
    )
    accelerate: bool = Field(
        False,
        description="score with a faster copy: BatchNorm folded, channels last; the same to rounding",
    )
    output: str | int | None = Field(
        None, description="key or position of the logits, where the classifier returns several"
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


class GuardExtras(FileExtras):
    """What a guard's file says of the classifier, which it does not hold."""

    classifier: ClassifierIdentity


class Guard(Method):
    """Scores images by what a given classifier makes of them. The classifier is neither changed nor saved.

    A subclass says which `PostHocScore` it uses (`make_score`).

    Calibrate on images that the classifier was **not** trained on: it is surer of its own training images than of new
    ones, so a threshold set on those gives more false alarms than it promises.

    Args:
        config: options, where a file holds them.
        classifier: the module, or the text that names it; see `GuardConfig.classifier`.
        options: see ``Config``.
    """

    Config: ClassVar[type[MethodConfig]] = GuardConfig
    Extras: ClassVar[type[FileExtras]] = GuardExtras
    config: GuardConfig

    def __init__(
        self, config: MethodConfig | None = None, *, classifier: nn.Module | str | None = None, **options: Any
    ) -> None:
        module = None if isinstance(classifier, str) else classifier
        if isinstance(classifier, str):
            if config is None:
                options["classifier"] = classifier
            else:
                config = config.model_copy(update={"classifier": classifier})
        super().__init__(config, **options)
        # From a file (config given) only weights are read; importing code needs the caller's own word.
        trusted = config is None or isinstance(classifier, str)
        if module is None and self.config.classifier is not None:
            module = self._load_named(self.config.classifier, trusted)
        if module is None:
            raise ValueError(
                f"{self.info.name} guards a classifier: pass classifier=model, or name one "
                "(classifier='resnet18' with classifier_weights=..., 'module:function', or a file of torch.export)"
            )
        normalization = None
        if self.config.mean is not None and self.config.std is not None:
            normalization = Normalization(self.config.mean, self.config.std)
        self.score_module: PostHocScore | None = self.make_score()
        probe = ClassifierProbe(
            module,
            layer=self.config.layer,
            output=self.config.output,
            normalization=normalization,
            read_features=self.reads_features,
            accelerate=self.config.accelerate,
        )
        # In a tuple, not as a submodule: the classifier is neither saved nor moved nor switched by the guard.
        self._held = (probe,)
        self.classifier_fingerprint: str | None = None

    def _load_named(self, name: str, trusted: bool) -> nn.Module:
        if not trusted and kind_of(name) != "timm":
            raise ValueError(
                f"this guard's file names its classifier as {name!r}, which would run code or open a program; pass it "
                f"yourself if you trust it: dracones.load(path, classifier={name!r}), --classifier on the command line"
            )
        named = load_classifier(name, self.config.classifier_weights)
        updates: dict[str, Any] = {}
        if self.config.mean is None and named.mean is not None:
            updates |= {"mean": named.mean, "std": named.std}
        if self.config.size is None and named.size is not None:
            updates["size"] = named.size
        if updates:
            self.config = self.config.model_copy(update=updates)
        return named.module

    # What a method gives ----------------------------------------------------------------------------------------

    def make_score(self) -> PostHocScore | None:
        """The formula with this configuration's options; ``None`` where the score needs the network itself."""
        return None

    @property
    def reads_features(self) -> bool:
        """Whether penultimate features are needed."""
        score = self.make_score()
        return score is not None and "features" in score.reads

    # The contract -----------------------------------------------------------------------------------------------

    @property
    def probe(self) -> ClassifierProbe:
        """The classifier as it is read."""
        return self._held[0]

    @property
    def classifier(self) -> nn.Module:
        """The guarded classifier, in the mode it was found in."""
        return self.probe.classifier

    def training_config(self) -> TrainingConfig | None:
        """Nothing is trained."""
        return None

    def build(self, image_shape: tuple[int, int, int]) -> None:
        """Nothing depends on the images' shape but what the classifier accepts."""

    def fit_statistics(self, context: FitContext) -> None:
        """One pass over the training images; where nothing is learnt, a first batch that checks the classifier."""
        self.classifier_fingerprint = fingerprint(self.classifier)
        score = self.score_module
        if score is None or not score.learns:
            first = next(iter(context.train.batches(GATHERING_BATCH)))
            self.probe(first.images)
            return
        outputs, labels = self.gather(context.train)
        self.fit_outputs(outputs, labels)

    def fit_outputs(self, outputs: ClassifierOutputs, labels: Tensor | None, head: LinearHead | None = None) -> None:
        """Learn from outputs gathered before, shared by several guards of one classifier; see `compare`."""
        if self.score_module is not None and self.score_module.learns:
            self.score_module.fit(outputs, labels=labels, head=head or self.probe.head).to(self.device)

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
        """Logits ``[B, K]`` and scores ``[B]`` from one pass of the probe."""
        outputs = probe(images)
        return outputs.logits, self.score_outputs(outputs)

    def score_outputs(self, outputs: ClassifierOutputs) -> Tensor:
        """Scores ``[B]`` of outputs gathered before.

        Raises:
            ValueError: the method needs the network itself.
        """
        if self.score_module is None:
            raise ValueError(f"{self.info.name} runs the classifier again for every image; call score(images)")
        features = None if outputs.features is None else outputs.features.to(self.device)
        return self.score_module.score(ClassifierOutputs(outputs.logits.to(self.device), features))

    # The file ---------------------------------------------------------------------------------------------------

    def header_extras(self) -> dict[str, Any]:
        """The classifier's identity, not its weights."""
        return {"classifier": {"fingerprint": self.classifier_fingerprint, "type": type(self.classifier).__name__}}

    def restore(self, extras: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
        """Refuse a classifier other than the one the guard was fitted on, then read the state."""
        stored = extras["classifier"]
        check_fingerprint(self.classifier, stored["fingerprint"], stored["type"])
        self.classifier_fingerprint = stored["fingerprint"]
        super().restore(extras, state)


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
