import copy
import itertools
import math

import pytest
import torch
from torch import nn

from dracones.training import TrainingConfig
from dracones.training.optimizers import clip_gradients, gradient_norm, learning_rate_factor, make_optimizer

KINDS = {
    "adam": lambda p: torch.optim.Adam(p, 0.01, betas=(0.8, 0.9), eps=1e-4, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, betas=(0.8, 0.9), eps=1e-4, weight_decay=0.1),
    "adamax": lambda p: torch.optim.Adamax(p, 0.01, betas=(0.8, 0.9), eps=1e-4, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, alpha=0.95, eps=1e-4, momentum=0.5, weight_decay=0.1),
    "sgd": lambda p: torch.optim.SGD(p, 0.01, momentum=0.5, weight_decay=0.1),
}


@pytest.mark.parametrize("name", KINDS)
def test_each_option_reaches_the_optimizer(name):
    config = TrainingConfig(
        optimizer=name,
        learning_rate=0.01,
        betas=(0.8, 0.9),
        epsilon=1e-4,
        smoothing=0.95,
        momentum=0.5,
        weight_decay=0.1,
    )
    mine = nn.Linear(3, 2)
    plain = copy.deepcopy(mine)
    for module, optimizer in (
        (mine, make_optimizer(list(mine.parameters()), config)),
        (plain, KINDS[name](plain.parameters())),
    ):
        for step in range(5):
            optimizer.zero_grad()
            (module(torch.full((4, 3), step + 1.0)) ** 2).sum().backward()
            optimizer.step()
    for one, other in zip(mine.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def factors(config, total=1000):
    return [learning_rate_factor(config, step / total, step) for step in range(total)]


def test_step_schedule_halves_at_eighty_and_ninety_per_cent():
    path = factors(TrainingConfig(schedule="step"))
    assert (path[799], path[800], path[899], path[900], path[999]) == (1.0, 0.5, 0.5, 0.25, 0.25)


def test_cosine_agrees_with_pytorch_s_own():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=1000, eta_min=0.01)
    for factor in factors(TrainingConfig(schedule="cosine", final_fraction=0.01)):
        assert math.isclose(factor, theirs.get_last_lr()[0], rel_tol=1e-6)
        optimizer.step()
        theirs.step()


def test_warm_up_by_steps_and_by_share_are_linear_and_end_at_one():
    by_steps = factors(TrainingConfig(warmup=100, warmup_start=0.1))
    by_share = factors(TrainingConfig(warmup=0.1, warmup_start=0.1))
    for path in (by_steps, by_share):
        rises = [later - earlier for earlier, later in itertools.pairwise(path[:100])]
        assert max(rises) - min(rises) < 1e-12
        assert path[100:] == [1.0] * 900
    assert by_steps[0] == pytest.approx(0.1 + 0.9 / 100)
    assert by_share[0] == pytest.approx(0.1)


def test_norm_and_clipping_agree_with_pytorch_s_own():
    tensors = [torch.randn(shape, generator=torch.Generator().manual_seed(2)) for shape in ((3, 4), (5,), ())]
    parameters = [nn.Parameter(torch.zeros_like(tensor)) for tensor in tensors]
    for parameter, tensor in zip(parameters, tensors, strict=True):
        parameter.grad = tensor.clone()
    total = nn.utils.clip_grad_norm_(parameters, 0.5)
    norm = gradient_norm(tensors)
    torch.testing.assert_close(norm, total)
    clip_gradients(tensors, float(norm), 0.5)
    for parameter, tensor in zip(parameters, tensors, strict=True):
        torch.testing.assert_close(tensor, parameter.grad, rtol=1e-5, atol=1e-6)
    before = [tensor.clone() for tensor in tensors]
    clip_gradients(tensors, 0.5, 0.6)
    assert all(torch.equal(one, other) for one, other in zip(before, tensors, strict=True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_entry_makes_the_norm_non_finite(bad):
    assert not math.isfinite(gradient_norm([torch.ones(3), torch.tensor([1.0, bad])]))
