"""What a paper describes: tensors in, tensors out."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.utils.data import Dataset

from dracones.images import ImageCollection, reading_threads
from dracones.methods.config import MethodConfig
from dracones.methods.info import MethodInfo
from dracones.methods.learning import FitContext, Parts, Trainee
from dracones.methods.scores import Scores
from dracones.training import Progress, TrainingConfig, counting


class FileExtras(BaseModel):
    """What a method adds to a file's header; most add nothing."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Method(nn.Module, ABC):
    """A score of images, and how it is learnt; larger score = more anomalous.

    A subclass gives:

    - ``info``: its `MethodInfo`;
    - ``Config``: its options, a subclass of `MethodConfig`; a number of which something is made is bounded there;
    - ``Extras``: the schema of `header_extras`, where it gives any;
    - `build`: make its submodules for a shape (called by a fit and, before the state is read, by `dracones.load`);
    - `forward`: scores of a batch, as a **pure graph** of tensors: no ``len(tensor)`` or ``.item()``, no check of
      values, file, change of mode, or cutting by the size of the batch, so that it exports with a free batch. The
      detector has checked the images; scores are checked after;
    - `host_statistics`, where the score needs what no graph holds (sizes of codecs);
    - what learning it needs: `training_config` and `training_loss` for gradient descent, `fit_statistics` for
      what is gathered. `training_data` may swap images for something computed from them (frozen features).

    Everything that changes a score after loading must be a parameter or a buffer, or follow from ``Config``.
    Buffers may change their size while fitting (register them empty); parameters may not.
    """

    info: ClassVar[MethodInfo]
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    Extras: ClassVar[type[FileExtras]] = FileExtras

    def __init__(self, config: MethodConfig | None = None, **options: Any) -> None:
        super().__init__()
        if config is not None and options:
            raise TypeError(
                f"{', '.join(options)}: {self.info.name} is fixed as it was fitted; fit again with other options"
            )
        self.config = config if config is not None else self.Config.from_options(**options)

    @abstractmethod
    def build(self, image_shape: tuple[int, int, int]) -> None:
        """Make the submodules for images ``[C, H, W]``; called under the configuration's seed."""

    @abstractmethod
    def forward(self, images: Tensor, host: Tensor | None = None) -> Scores:
        """Score treated images ``[B, C, H, W]`` in [0, 1]; a score must not depend on the rest of the batch.

        Args:
            images: as the treatment leaves them.
            host: what `host_statistics` gave for the same images; computed here if it is left out.
        """

    def host_statistics(self, images: Tensor) -> Tensor | None:  # noqa: ARG002
        """Numbers ``[B, k]`` that no graph can hold, for treated images; ``None`` for a method that needs none."""
        return None

    def refuse_incomplete(self) -> None:
        """Refuse at once what no fit could use, such as a guard without a classifier."""

    def explain_nan(self, images: Tensor) -> None:
        """Raise what explains scores of these treated images that are not numbers, where the method knows."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the fit should know beside numbers; most methods have nothing to say."""
        return ()

    @property
    def voices(self) -> tuple[str, ...]:
        """Whom `Scores.evidence` hears, in its order and in a reader's words; most methods are one voice alone."""
        return ()

    @property
    def learns(self) -> bool:
        """Whether scores depend on the images of the fit; those then score lower than new ones."""
        return True

    @property
    def learns_held_out(self) -> bool:
        """Whether images that are held out of training are learnt from in the end."""
        return False

    @property
    def scores_in_threads(self) -> bool:
        """Whether copies of this method that share its tensors may score side by side."""
        return True

    @property
    def gives_maps(self) -> bool:
        """Whether scores come with heat maps, as this method is set up."""
        return "map" in self.info.gives

    def settle(self, device: torch.device) -> None:
        """Turn options that follow the machine into what they mean on ``device``; what is saved says it."""

    def training_config(self) -> TrainingConfig | None:
        """How to train; ``None`` for a method that only gathers statistics."""
        return getattr(self.config, "training", None)

    def training_data(self, images: ImageCollection, progress: Progress | None = None) -> Dataset[Any]:
        """What the training loop draws batches from; the treated images unless a method says otherwise."""
        with counting(progress, len(images), "reading images") as count:
            return images.to_dataset(workers=reading_threads(), progress=count)

    def training_loss(self, batch: Any, *, generator: torch.Generator | None = None) -> Tensor:  # noqa: ARG002
        """Scalar to minimise for a batch of `training_data`."""
        raise TypeError(f"{self.info.name} is not trained by gradient descent; its training_config should be None")

    def trainees(self, parts: Parts, progress: Progress | None = None) -> Iterator[Trainee]:
        """The modules to train, one after the other; the method itself unless it says otherwise."""
        config = self.training_config()
        if config is not None:
            validation = self.training_data(parts.validation, progress) if len(parts.validation) else None
            yield Trainee(0, self, config, self.training_data(parts.train, progress), validation)

    def fit_statistics(self, context: FitContext) -> None:
        """Gather what the score needs beside trained weights; called after training, in eval mode."""

    @property
    def learns_on(self) -> bool:
        """Whether a fitted method can take in further images without the earlier ones; see `learn_on`."""
        return False

    def learn_on(self, context: FitContext) -> tuple[str, ...]:  # noqa: ARG002
        """Take in further normal images, as if they had been among those of the fit.

        Returns:
            what learnt on and what was left as it was, in words.

        Raises:
            TypeError: a method that is trained, and would forget.
        """
        raise TypeError(f"{self.info.name} cannot learn on")

    def saved_state(self) -> dict[str, Tensor]:
        """Tensors that go into a file; all of ``state_dict`` unless a method leaves out what it is handed again."""
        return dict(self.state_dict())

    def header_extras(self) -> dict[str, Any]:
        """What a method adds to a file's header, such as the fingerprint of a model that it wraps."""
        return {}

    def refuse_outdated(self, names: Collection[str]) -> None:
        """Refuse a state with tensors of these names that an earlier version wrote, and say what to do.

        Raises:
            ValueError: the method knows the state and cannot give its scores again.
        """

    def restore(self, extras: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        """Take over what `saved_state` and `header_extras` gave; sizes of buffers follow the file.

        Raises:
            RuntimeError: names that do not match, or a parameter of another shape.
        """
        load_state(self, state)

    @property
    def device(self) -> torch.device:
        """Where the method's tensors are."""
        for tensor in [*self.parameters(), *self.buffers()]:
            return tensor.device
        return torch.device("cpu")


def build(method: Method, shape: tuple[int, int, int]) -> None:
    """Make a method's submodules for ``shape``, under its configuration's seed."""
    # Modules draw their first weights from torch's global generator: seed a fork of it, leave the global alone.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(method.config.seed)
        method.build(shape)


def load_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict whose buffers may have grown while fitting (memory banks, fitted statistics).

    Parameters without memory (`hollow`) and grown buffers take the tensors over as they are.

    Raises:
        RuntimeError: names that do not match, or a parameter of another shape.
    """
    for name, tensor in state.items():
        path, _, leaf = name.rpartition(".")
        try:
            owner = module.get_submodule(path)
        except AttributeError:
            continue  # load_state_dict below names it
        held = owner._buffers.get(leaf)
        grown = held is None or held.shape != tensor.shape or held.dtype != tensor.dtype
        if leaf in owner._buffers and (grown or (held is not None and held.is_meta)):
            owner._buffers[leaf] = tensor
        waiting = owner._parameters.get(leaf)
        if waiting is not None and waiting.is_meta and waiting.shape == tensor.shape:
            owner._parameters[leaf] = nn.Parameter(_laid_out(tensor, waiting), requires_grad=waiting.requires_grad)
    module.load_state_dict(dict(state), strict=True)


def _laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor in another's type and order in memory (channels last); itself where it has both."""
    if tensor.dtype == like.dtype and tensor.stride() == like.stride():
        return tensor
    return torch.empty_like(like, device=tensor.device).copy_(tensor)
