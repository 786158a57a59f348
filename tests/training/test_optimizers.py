import copy
import itertools
import math

import pytest
import torch
from torch import nn

from dracones.training import TrainingConfig, train
from dracones.training.optimizers import learning_rate_factor, make_optimizer

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


@pytest.mark.parametrize(("clip", "moved"), [(0.5, 0.5), (None, 13.0), (20.0, 13.0)])
def test_clipping_bounds_the_norm_of_the_whole_gradient(clip, moved):
    """Gradient (3, 4, 12) over two parameters, norm 13; plain SGD of rate 1 moves by the gradient itself."""

    class Slopes(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))

        def training_loss(self, batch, *, generator=None):
            return batch.mean() * (3 * self.one[0] + 4 * self.one[1] + 12 * self.two[0])

    module = Slopes()
    config = TrainingConfig(max_steps=1, optimizer="sgd", learning_rate=1.0, clip_norm=clip, device="cpu")
    train(module, torch.ones(32, 1), config)
    step = torch.cat([module.one, module.two]).detach()
    torch.testing.assert_close(step, -torch.tensor([3.0, 4.0, 12.0]) * moved / 13)


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_finite_loss_with_a_gradient_that_is_not_leaves_the_weights_alone(clip, bad):
    class Spoils(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))
            self.weight.register_hook(lambda gradient: gradient * torch.tensor([1.0, 1.0, bad]))

        def training_loss(self, batch, *, generator=None):
            return (self.weight * batch).square().mean()

    module = Spoils()
    report = train(module, torch.ones(64, 3), TrainingConfig(max_steps=2, clip_norm=clip, device="cpu"))
    assert report.skipped_steps == 2
    assert torch.equal(module.weight.detach(), torch.ones(3))
