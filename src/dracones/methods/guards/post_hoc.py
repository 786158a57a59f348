"""A post-hoc score: statistics of a classifier's outputs, then a number per image. Knows no network, image or file."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from dracones.methods.guards.outputs import ClassifierOutputs, LinearHead, check_labels

Input = Literal["logits", "features", "labels", "head"]


class PostHocScore(nn.Module, ABC):
    """A formula of logits and penultimate features, usable on precomputed arrays.

    An implementer
        - names in ``reads`` what the formula needs: ``logits``, ``features``, ``labels`` (while fitting), ``head`` (the
          classifier's last linear layer, while fitting);
        - keeps all that it learns in buffers, which are created empty in ``__init__``;
        - overrides `score_outputs`, and `fit_outputs` where there is something to learn.

    The buffers' sizes depend on the classifier: load a state with `dracones.methods.load_state`.
    """

    reads: ClassVar[tuple[Input, ...]] = ("logits",)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("fitted", torch.tensor(False))
        self.fitted: Tensor

    @property
    def learns(self) -> bool:
        """Whether `fit` must be called before `score`."""
        return type(self).fit_outputs is not PostHocScore.fit_outputs

    @torch.no_grad()
    def fit(self, outputs: ClassifierOutputs, *, labels: Tensor | None = None, head: LinearHead | None = None) -> Self:
        """Learn from the outputs of normal images.

        Args:
            outputs: of the N training images.
            labels: ``[N]`` class labels, for the methods that read them.
            head: the last layer, for the methods that read it.

        Raises:
            ValueError: something that the method reads is absent or does not fit.
        """
        who = type(self).__name__
        if "features" in self.reads:
            outputs.needed_features(who)
        if "labels" in self.reads:
            labels = check_labels(labels, len(outputs), outputs.logits.shape[1], who=who)
        if "head" in self.reads:
            if head is None:
                raise ValueError(
                    f"{who} needs the classifier's last linear layer (weight [K, F], bias [K]); none was found: "
                    "read the layer whose output the last Linear takes, or use a score of logits"
                )
            _check_head(head, outputs, who)
        self.fit_outputs(outputs, labels, head)
        self.fitted.fill_(True)
        return self

    @torch.no_grad()
    def score(self, outputs: ClassifierOutputs) -> Tensor:
        """Scores ``[B]``, larger = more anomalous.

        Raises:
            ValueError: features are needed and absent.
            RuntimeError: not fitted.
        """
        if self.learns and not self.fitted:
            raise RuntimeError(f"{type(self).__name__} must be fitted before it can score")
        if "features" in self.reads:
            outputs.needed_features(type(self).__name__)
        return self.score_outputs(outputs)

    def fit_outputs(self, outputs: ClassifierOutputs, labels: Tensor | None, head: LinearHead | None) -> None:
        """Learn; the arguments are checked. A method that learns nothing leaves this alone."""

    @abstractmethod
    def score_outputs(self, outputs: ClassifierOutputs) -> Tensor:
        """The formula; the arguments are checked."""


def _check_head(head: LinearHead, outputs: ClassifierOutputs, who: str) -> None:
    features = outputs.needed_features(who)[:256]
    if features.shape[1] != head.weight.shape[1]:
        raise ValueError(
            f"{who}: features have {features.shape[1]} dimensions, the last layer reads {head.weight.shape[1]}; "
            "read the layer right before the last one"
        )
    expected, got = outputs.logits[:256], head(features)
    # Half precision rounds logits at about 1e-2 of their size; a wrong layer misses by their whole spread.
    if expected.shape != got.shape or (got - expected).abs().max() > 0.05 * expected.std().clamp_min(1e-6):
        raise ValueError(
            f"{who}: last layer times features does not give the logits, so these are not the features it reads; "
            "read the layer right before the last one"
        )
