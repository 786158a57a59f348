"""Put a classifier in scoring mode and give it back as it was found."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def scoring_mode(model: nn.Module) -> Iterator[None]:
    """Every submodule in eval mode; afterwards each has the mode it was found in, also after an error.

    The flags are set one by one: ``model.eval()`` and back would lose a frozen BatchNorm inside a model that trains,
    and exported programs refuse the call. BatchNorm left in training mode changes the scores of every image with the
    batch it came in.

    >>> model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3).eval())
    >>> with scoring_mode(model):
    ...     [m.training for m in model]
    [False, False]
    >>> [m.training for m in model]
    [True, False]
    """
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def without_parameter_gradients(model: nn.Module) -> Iterator[None]:
    """No parameter asks for a gradient inside; each asks again afterwards if it did before.

    Autograd then keeps nothing that only a weight's gradient would need, and ``.grad`` stays as it was.

    >>> model = nn.Linear(2, 2)
    >>> with without_parameter_gradients(model):
    ...     model.weight.requires_grad
    False
    >>> model.weight.requires_grad
    True
    """
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)
