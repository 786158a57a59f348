"""The optimizers by name, and the learning rate as a function of the share of the run that is done."""

import math
from collections.abc import Sequence

from torch import nn
from torch.optim import SGD, Adam, Adamax, AdamW, Optimizer, RMSprop

from dracones.training.config import TrainingConfig


def make_optimizer(parameters: Sequence[nn.Parameter], config: TrainingConfig) -> Optimizer:
    """The optimizer that a configuration names, in its fused form where there is one for the device.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> weight = nn.Parameter(torch.zeros(3))
        >>> type(make_optimizer([weight], TrainingConfig(optimizer="adamax"))).__name__
        'Adamax'
    """
    rate, decay = config.learning_rate, config.weight_decay
    fused = {parameter.device.type for parameter in parameters} <= {"cpu", "cuda"} and all(
        parameter.is_floating_point() for parameter in parameters
    )
    if config.optimizer == "sgd":
        return SGD(parameters, rate, momentum=config.momentum, weight_decay=decay, fused=fused)
    if config.optimizer == "rmsprop":
        return RMSprop(parameters, rate, config.smoothing, config.epsilon, momentum=config.momentum, weight_decay=decay)
    if config.optimizer == "adamax":
        return Adamax(parameters, rate, config.betas, config.epsilon, weight_decay=decay)
    kind = Adam if config.optimizer == "adam" else AdamW
    return kind(parameters, rate, config.betas, config.epsilon, weight_decay=decay, fused=fused)


def learning_rate_factor(config: TrainingConfig, share: float, step: int) -> float:
    """Factor on the learning rate, after `share` in [0, 1] of the run and `step` steps.

    Cosine follows Loshchilov and Hutter (2017), "SGDR", equation 5, without restarts. The `step` schedule with its
    defaults halves the rate at 80 % and at 90 % of the run (Nalisnick et al., 2019, appendix A).

    Example:
        >>> config = TrainingConfig(schedule="step", warmup=10)
        >>> [learning_rate_factor(config, share, step) for share, step in ((0.0, 4), (0.5, 500), (0.85, 850))]
        [0.5, 1.0, 0.5]
    """
    factor = 1.0
    if config.schedule == "cosine":
        low = config.final_fraction
        factor = low + (1 - low) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
    elif config.schedule == "step":
        factor = config.decay ** sum(share >= milestone for milestone in config.milestones)
    # The first step already moves: step 0 of n warm-up steps has 1/n of the way behind it.
    done = share / config.warmup if 0 < config.warmup < 1 else (step + 1) / config.warmup if config.warmup else 1.0
    return factor * (config.warmup_start + (1 - config.warmup_start) * min(done, 1.0))
