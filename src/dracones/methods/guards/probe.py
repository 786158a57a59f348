"""Logits and penultimate features of any classifier in one pass, read on an eval-mode view of it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from dracones.methods.guards.acceleration import accelerated
from dracones.methods.guards.checks import (
    refuse_dependence,
    refuse_probabilities,
    warn_if_no_logits,
    warn_of_foreign_statistics,
)
from dracones.methods.guards.layers import FoundLayer, find_layer
from dracones.methods.guards.normalization import Normalization, warn_if_normalised, warn_if_normalises_itself
from dracones.methods.guards.outputs import ClassifierOutputs, LinearHead, check_finite, logits_of
from dracones.methods.guards.pooling import pooled
from dracones.methods.guards.views import eval_view, unwrapped
from dracones.methods.guards.watching import Watch, first_tensor


class _Caught(threading.local):
    """What the layers that are read gave, one dictionary a pass; each thread has its own."""

    def __init__(self) -> None:
        self.passes: list[dict[str, Tensor]] = []

    def __reduce__(self) -> Any:
        return _Caught, ()


class _Reading:
    """Stands in for a layer's ``forward`` in a view: the same answer, and what is read put aside."""

    def __init__(self, name: str, forward: Any, found: FoundLayer, caught: _Caught) -> None:
        self.name, self.forward, self.found, self.caught = name, forward, found, caught

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        passes = self.caught.passes
        if passes and self.found.side == "input":
            passes[-1][self.name] = pooled(first_tensor(args, kwargs), self.found.pool)
        result = self.forward(*args, **kwargs)
        if passes and self.found.side == "output":
            passes[-1][self.name] = pooled(result, self.found.pool)
        return result


class ClassifierProbe(nn.Module):
    """A classifier that answers with logits and penultimate features, in eval mode; itself it is never touched.

    What runs is a view of the classifier (`views.eval_view`): the same tensors, other modules. Modes are not switched
    and no hook is set, so that other threads may train or serve it meanwhile; features belong to one call.

    Args:
        classifier: any module that maps images to logits; also one from ``torch.export``. Device, precision and an
            active autocast are the classifier's own: images are brought to its device and type, outputs to float32.
        layer: name of the module whose output is read as features; by default the input of the layer whose output is
            the logits, found by itself. Maps are averaged over space, ``[B, N, C]`` over tokens.
        output: key, field or position of the logits where the classifier returns several things.
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
                "module, or name it as a string (timm name, 'module:function' or an exported program) in "
                "dracones.create"
            )
        # Layers of a compiled or parallel model cannot be read; its original holds the same weights.
        self.classifier = unwrapped(classifier) if read_features or accelerate else classifier
        self.accelerate = accelerate
        self.output = output
        self.normalization = normalization
        self.read_features = read_features
        self.layer = layer
        self.found: FoundLayer | None = None
        self.inspected = False
        self._caught = _Caught()
        # In lists, so as not to be submodules beside the classifier.
        self._running: list[nn.Module] = []
        self._anchor: list[Any] = []
        if layer is not None and read_features:
            _refuse_unknown(self.classifier, layer)
        if normalization is not None:
            warn_if_normalises_itself(self.classifier)

    @property
    def head(self) -> LinearHead | None:
        """The linear map from the features to the logits, where there is one; known after the first pass."""
        return None if self.found is None else self.found.head

    @property
    def running(self) -> nn.Module:
        """The module that answers: a view of the classifier in eval mode, or its faster copy."""
        if not self._running:
            self._set_running(self._view())
        return self._running[0]

    def _view(self) -> nn.Module:
        compiled = unwrapped(self.classifier) is not self.classifier
        if compiled and not any(module.training for module in self.classifier.modules()):
            return self.classifier  # as fast as its owner made it
        return eval_view(self.classifier)

    def _set_running(self, running: nn.Module) -> None:
        self._running = [running]
        self._read_from(running)
        # Where a tensor is held, not the tensor: a classifier that is moved or halved later shows it here.
        tables: list[dict[str, Any]] = [table for m in running.modules() for table in (m._parameters, m._buffers)]
        held = [(table, name) for table in tables for name, tensor in table.items() if tensor is not None]
        wide = [(table, name) for table, name in held if table[name].is_floating_point()]
        self._anchor = [next(iter(held), None), next(iter(wide), None)]

    def _read_from(self, running: nn.Module) -> None:
        if not self.read_features or self.found is None:
            return
        for name in self.found.names:
            layer = running.get_submodule(name)
            layer.__dict__["forward"] = _Reading(name, layer.forward, self.found, self._caught)

    @property
    def device(self) -> torch.device:
        """Where the classifier's weights are."""
        return self._held(0).device

    @property
    def dtype(self) -> torch.dtype:
        """Type the classifier computes in."""
        return self._held(1).dtype

    def _held(self, which: int) -> Tensor:
        _ = self.running
        place = self._anchor[which]
        held: Tensor = torch.empty(0) if place is None else place[0][place[1]]
        return held

    def prepare(self, images: Tensor) -> Tensor:
        """Images ``[B, C, H, W]`` in [0, 1] as the classifier takes them: normalised, on its device, in its type.

        Always other memory than the caller's: a classifier may work in place.
        """
        if images.ndim != 4:
            raise ValueError(f"images must be [B, C, H, W], got {tuple(images.shape)}")
        if not images.is_floating_point():
            raise TypeError(f"images must be floating point in [0, 1], got {images.dtype}; divide 8-bit levels by 255")
        inputs = images.to(self.device)
        if self.normalization is not None:
            inputs = self.normalization(inputs.float())
        if self.accelerate:
            inputs = inputs.to(self.dtype, memory_format=torch.channels_last)
        else:
            inputs = inputs.to(self.dtype)
        return inputs.clone() if inputs is images else inputs

    def forward(self, images: Tensor) -> ClassifierOutputs:
        """Outputs of images ``[B, C, H, W]`` in [0, 1]; without gradients. Checks their values, so no graph.

        Raises:
            TypeError, ValueError: what the classifier returned are not logits (see `outputs.logits_of`).
        """
        outputs = self.read(images)
        check_finite(outputs.logits)
        return outputs

    def read(self, images: Tensor) -> ClassifierOutputs:
        """As `forward`, without looking at values: a pure graph once the classifier was inspected."""
        with torch.no_grad():
            if not self.inspected:
                self.inspect(images)
            return self.run(self.prepare(images))

    def run(self, inputs: Tensor) -> ClassifierOutputs:
        """Outputs of prepared inputs; gradients flow where the caller lets them."""
        running = self.running
        if not self.read_features:
            return ClassifierOutputs(logits_of(running(inputs), self.output))
        with self._catching() as caught:
            logits = logits_of(running(inputs), self.output)
        names = () if self.found is None else self.found.names
        if not names or any(name not in caught for name in names):
            raise ValueError(
                f"layer {self.layer or names!r} did not run in the classifier's forward pass, so it has no features "
                "to read; name another layer"
            )
        parts = [caught[name] for name in names]
        features = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return ClassifierOutputs(logits, features.to(logits.dtype))

    @contextmanager
    def _catching(self) -> Iterator[dict[str, Tensor]]:
        caught: dict[str, Tensor] = {}
        self._caught.passes.append(caught)
        try:
            yield caught
        finally:
            self._caught.passes.pop()

    def know(self, found: FoundLayer | None) -> None:
        """Take over what an inspection found before: of a file, or of another copy of the same classifier."""
        # A faster copy is made at the first pass, which inspects again.
        self.found, self.inspected, self._running = found, not self.accelerate, []

    @torch.no_grad()
    def inspect(self, images: Tensor) -> None:
        """Once, on a few images: is this a classifier of logits that answers each by itself, and where are features?

        Raises:
            ValueError: its answers are probabilities, depend on chance or on the batch; or no layer can be read.
        """
        if self.normalization is not None:
            warn_if_normalised(images)
        self.found, self._running = None, []
        watch, view = Watch(), eval_view(self.classifier)
        few = images[:4].detach()
        with watch.around(view), warn_of_foreign_statistics(view):
            logits = self._answer(view, self.prepare(few))
        check_finite(logits)
        refuse_probabilities(logits)
        warn_if_no_logits(logits, watch)
        if not _is_exported(self.classifier):
            # A program's operations were seen when it was loaded, and it may be fixed to some sizes.
            refuse_dependence(few, lambda x: self._answer(view, self.prepare(x)), logits)
        if self.read_features:
            self.found = find_layer(watch, logits, self.layer)
        if self.accelerate:
            keep = None if self.found is None else self.found.name
            self._set_running(accelerated(view, self.prepare(few), keep=keep))
        else:
            self._set_running(self._view())
        self.inspected = True

    def _answer(self, view: nn.Module, inputs: Tensor) -> Tensor:
        return logits_of(self._call(view, inputs), self.output)

    def _call(self, view: nn.Module, inputs: Tensor) -> Any:
        try:
            return view(inputs)
        except (RuntimeError, ValueError, AssertionError) as error:
            if _is_exported(self.classifier):
                raise ValueError(
                    f"the exported program refused a batch of shape {tuple(inputs.shape)}: {error}. Programs "
                    "are fixed to the shapes they were exported with: export with a dynamic batch dimension "
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


def _is_exported(model: nn.Module) -> bool:
    return isinstance(model, torch.fx.GraphModule) and any(
        str(node.target).startswith("aten.") for node in model.graph.nodes
    )
