"""Mixed precision is for conditioners: the flow's own arithmetic stays as precise as its input."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Switches autocast off around matrix products: in bfloat16 they would cost z and the log-det five digits."""
    return without_autocast(x.device.type)


def without_autocast(kind: str) -> AbstractContextManager[object]:
    """Switches autocast off on devices of a kind; where it is off nothing, as a traced graph would hold the switch."""
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
