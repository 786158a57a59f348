"""A score of what a classifier gives, without the classifier: one formula, and what it learns."""

from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from dracones.methods.guards.outputs import ClassifierOutputs, LinearHead, check_head, check_labels
from dracones.methods.method import Method

Input = Literal["logits", "features", "labels", "head"]


class Formula(Method):
    """What a guard makes of logits and features. It runs on arrays that were computed before.

    A subclass

    - names in ``reads`` what it needs: ``logits``, ``features``, and while fitting ``labels`` and ``head`` (the
      classifier's last linear layer);
    - keeps all that it learns in buffers, which are created empty;
    - overrides `formula`, a pure graph, and `learn` where there is something to learn.
    """

    reads: ClassVar[tuple[Input, ...]] = ("logits",)

    def formula(self, logits: Tensor, features: Tensor | None) -> Tensor:  # noqa: ARG002
        """Scores ``[B]`` of float32 logits ``[B, K]`` and features ``[B, F]``: a pure graph of tensors."""
        raise ValueError(f"{self.info.name} runs the classifier again for every image; call score(images)")

    def learn(self, outputs: ClassifierOutputs, labels: Tensor | None, head: LinearHead | None) -> None:
        """Learn; the arguments are checked. A guard that learns nothing leaves this alone."""

    @property
    def learns(self) -> bool:
        """Whether `fit_outputs` must be called before scores mean anything."""
        return type(self).learn is not Formula.learn

    @property
    def reads_features(self) -> bool:
        """Whether penultimate features are needed."""
        return "features" in self.reads

    @property
    def has_formula(self) -> bool:
        """Whether scores follow from outputs alone, without the network."""
        return type(self).formula is not Formula.formula

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
