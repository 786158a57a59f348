"""How a computation is being differentiated, for functions that write out their own backward."""

import torch
from torch.autograd import forward_ad


def plain_autograd() -> bool:
    """Whether autograd runs as ever: no compiler, no function transform (vmap, jacrev), no forward mode."""
    return (
        not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )
