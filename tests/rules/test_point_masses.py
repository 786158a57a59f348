"""Statistics that hardly ever move among normal images must not drown the others."""

import pytest
import torch

from dracones.rules.joint import Joint
from dracones.rules.normal_scores import NormalScores


@pytest.mark.parametrize("exceptions", [0, 2])
def test_a_departure_from_a_point_mass_is_worth_the_rarest_rank(exceptions):
    values = torch.zeros(1000, dtype=torch.float64)
    values[:exceptions] = 0.01
    scores = NormalScores(("share",))
    scores.fit({"share": values})
    found = scores.transform({"share": torch.tensor([0.0, 0.02, 5.0])})[:, 0]
    rarest = -torch.special.ndtri(torch.tensor(1 / 1001)).item()
    assert found[2].item() == pytest.approx(rarest, abs=1e-6)
    assert found.max().item() <= rarest + 1e-6


def test_a_real_tail_keeps_its_unit():
    generator = torch.Generator().manual_seed(0)
    scores = NormalScores(("x",))
    scores.fit({"x": torch.randn(5000, generator=generator).double()})
    assert scores.transform({"x": torch.tensor([20.0])}).item() == pytest.approx(20, rel=0.15)


def test_a_statistic_that_never_moved_does_not_drown_the_joint_density():
    generator = torch.Generator().manual_seed(0)
    rule = Joint(statistics=["x", "share"])
    rule.fit({"x": torch.randn(1000, generator=generator).double(), "share": torch.zeros(1000)})
    # one pixel of a usual image is saturated; another image is far out in what does move
    usual, far = rule.score({"x": torch.tensor([0.0, 12.0]), "share": torch.tensor([0.001, 0.0])}).tolist()
    assert far > usual + 20
