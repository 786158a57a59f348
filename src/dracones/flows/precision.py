"""Mixed precision is for conditioners: the flow's own arithmetic stays as precise as its input."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Switches autocast off around matrix products: in bfloat16 they would cost z and the log-det five digits."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
