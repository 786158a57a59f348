"""The likeliest that each level of the training images is: what the density of a position is compared with."""

from collections.abc import Callable

import torch
from torch import Tensor

from dracones.methods.learning import FitContext
from dracones.methods.on_features import FeatureMethod

_AT_ONCE = 8


def highest_by_level(
    method: FeatureMethod, context: FitContext, log_densities: Callable[[tuple[Tensor, ...]], list[Tensor]]
) -> Tensor:
    """The highest of the log-densities `[B, h_l, w_l]` of each level over the training images, `[L]`.

    Computed in the precision of scores. The papers take the highest over the *test* set, which makes a score depend on
    other test images.
    """
    found = []
    for maps in method.features_of(context.train, context.progress).chunks(_AT_ONCE):
        with method.scoring_precision():
            levels = log_densities(tuple(level.to(method.device) for level in maps))
        found.append(torch.stack([level.max() for level in levels]))
    return torch.stack(found).amax(dim=0)
