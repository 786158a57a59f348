"""Logits and penultimate features of any classifier in one pass, by a hook that is gone afterwards."""

from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from dracones.methods.guards.acceleration import accelerated
from dracones.methods.guards.layers import FoundLayer, find_layer, pooled, unwrapped
from dracones.methods.guards.modes import scoring_mode
from dracones.methods.guards.normalization import (
    Normalization,
    warn_if_normalised,
    warn_if_normalises_itself,
)
from dracones.methods.guards.outputs import (
    ClassifierOutputs,
    LinearHead,
    logits_of,
    refuse_probabilities,
)


class ClassifierProbe(nn.Module):
    """A classifier that answers with logits and penultimate features, in eval mode, left as it was found.

    Args:
        classifier: any module that maps images to logits; also one from ``torch.export``. Device, precision and an
            active autocast are the classifier's own: images are brought to its device and type, outputs to float32.
        layer: name of the module whose output is read as features; by default the input of the last linear layer,
            found by itself. ``[B, C, H, W]`` is averaged over space, ``[B, N, C]`` over tokens.
        output: key or position of the logits where the classifier returns a mapping or a sequence.
        normalization: applied to images in [0, 1] before the classifier.
        read_features: ``False`` leaves the layer alone.
        accelerate: run a faster copy (see `acceleration.accelerated`), made at the first pass.

    Raises:
        TypeError: not a module.
        ValueError: no layer of that name (the nearest are given).

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> probe = ClassifierProbe(net)
    >>> outputs = probe(torch.rand(5, 1, 2, 2))
    >>> outputs.logits.shape, outputs.features.shape, probe.found.name
    (torch.Size([5, 2]), torch.Size([5, 3]), '3')
    """

    def __init__(
        self,
        classifier: nn.Module,
        *,
        layer: str | None = None,
        output: str | int | None = None,
        normalization: Normalization | None = None,
        read_features: bool = True,
        accelerate: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(classifier, nn.Module):
            raise TypeError(
                f"classifier must be a torch.nn.Module, got {type(classifier).__name__}; wrap a function in a "
                "module, or "
                "name it as a string (timm name, 'module:function' or an exported program) in dracones.create"
            )
        # Hooks on parts of a compiled or parallel model never run; its original holds the same weights.
        self.classifier = unwrapped(classifier) if read_features or accelerate else classifier
        self.accelerate = accelerate
        # What runs: the classifier, or its faster copy; in a list, so as not to be a second submodule.
        self._running = [self.classifier]
        self.output = output
        self.normalization = normalization
        self.read_features = read_features
        self.layer = layer
        self.found: FoundLayer | None = None
        self._inspected = False
        if layer is not None and read_features:
            _refuse_unknown(self.classifier, layer)
        if normalization is not None:
            warn_if_normalises_itself(self.classifier)

    @property
    def head(self) -> LinearHead | None:
        """The last linear layer, where its product with the features is the logits; known after the first pass."""
        return None if self.found is None else self.found.head

    @property
    def running(self) -> nn.Module:
        """The module that answers: the classifier itself unless ``accelerate``."""
        return self._running[0]

    @property
    def device(self) -> torch.device:
        """Where the classifier's weights are."""
        return next((t.device for t in _tensors(self.running)), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """Type the classifier computes in."""
        return next((t.dtype for t in _tensors(self.running) if t.is_floating_point()), torch.float32)

    def prepare(self, images: Tensor) -> Tensor:
        """Images ``[B, C, H, W]`` in [0, 1] as the classifier takes them: normalised, on its device, in its type."""
        if images.ndim != 4:
            raise ValueError(f"images must be [B, C, H, W], got {tuple(images.shape)}")
        if not images.is_floating_point():
            raise TypeError(f"images must be floating point in [0, 1], got {images.dtype}; divide 8-bit levels by 255")
        images = images.to(self.device)
        if self.normalization is not None:
            if not self._inspected:
                warn_if_normalised(images)
            images = self.normalization(images.float())
        if self.accelerate:
            return images.to(self.dtype, memory_format=torch.channels_last)
        return images.to(self.dtype)

    def forward(self, images: Tensor) -> ClassifierOutputs:
        """Outputs of images ``[B, C, H, W]`` in [0, 1]; without gradients.

        Raises:
            TypeError, ValueError: what the classifier returned are not logits (see `outputs.logits_of`).
        """
        with torch.no_grad():
            return self.run(self.prepare(images))

    def run(self, inputs: Tensor) -> ClassifierOutputs:
        """Outputs of prepared inputs; gradients flow where the caller lets them."""
        if not self._inspected:
            self._inspect(inputs)
        with scoring_mode(self.running):
            if not self.read_features:
                return ClassifierOutputs(logits_of(self.running(inputs), self.output))
            return self._run_with_features(inputs)

    def _run_with_features(self, inputs: Tensor) -> ClassifierOutputs:
        if self.found is None:
            raise ValueError("the layer to read is not known; run the probe once on images first")
        caught: list[Tensor] = []
        module = self.running.get_submodule(self.found.name)
        if self.found.side == "input":
            handle = module.register_forward_pre_hook(lambda _, args: caught.append(pooled(args[0])))
        else:
            handle = module.register_forward_hook(lambda _, __, result: caught.append(pooled(result)))
        try:
            logits = logits_of(self.running(inputs), self.output)
        finally:
            handle.remove()
        if not caught:
            raise ValueError(
                f"layer {self.found.name!r} did not run in the classifier's forward pass, so it has no features "
                "to read; "
                "name another layer"
            )
        return ClassifierOutputs(logits, caught[-1].to(logits.dtype))

    @torch.no_grad()
    def _inspect(self, inputs: Tensor) -> None:
        """Once, on the first batch: is this a classifier of logits, and which layer is read?"""
        few = inputs[:4].detach()
        with scoring_mode(self.classifier):
            logits = logits_of(self._call(few), self.output)
            refuse_probabilities(logits)
            if self.read_features:
                self.found = find_layer(self.classifier, few, logits, self.layer)
        if self.accelerate:
            self._running = [accelerated(self.classifier, few, keep=None if self.found is None else self.found.name)]
        self._inspected = True

    def _call(self, inputs: Tensor) -> Any:
        try:
            return self.classifier(inputs)
        except (RuntimeError, ValueError, AssertionError) as error:
            if _is_exported(self.classifier):
                raise ValueError(
                    f"the exported program refused a batch of shape {tuple(inputs.shape)}: {error}. Programs "
                    "are fixed to the "
                    "shapes they were exported with: export with a dynamic batch dimension "
                    "(torch.export.export(model, (x,), dynamic_shapes={'x': {0: torch.export.Dim('batch')}}))"
                ) from error
            raise


def _refuse_unknown(model: nn.Module, layer: str) -> None:
    names = [name for name, _ in model.named_modules() if name]
    if layer in names:
        return
    near = get_close_matches(layer, names, n=3, cutoff=0.3)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"it has {', '.join(names[-8:])}"
    raise ValueError(f"the classifier has no layer {layer!r}; {hint}")


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _is_exported(model: nn.Module) -> bool:
    return isinstance(model, torch.fx.GraphModule) and any(
        str(node.target).startswith("aten.") for node in model.graph.nodes
    )
