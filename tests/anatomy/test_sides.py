"""Both sides treated alike, or refused."""

import pytest
import torch

from dracones.anatomy.sides import checked_sides, evaluating, open_sides
from dracones.images import Preprocess


def test_sizes_that_differ_are_refused_unless_a_resizing_is_named():
    small, large = torch.rand(4, 1, 8, 8), torch.rand(4, 1, 12, 12)
    with pytest.raises(ValueError, match=r"differ in size \(normal: \(8, 8\), large: \(12, 12\)\); name a common"):
        open_sides(small, {"large": large})
    sides = open_sides(small, {"large": large}, preprocess=Preprocess(size=(8, 8), channels=1))
    assert sides.normal.shape == sides.others["large"].shape == (4, 1, 8, 8)


def test_channels_that_differ_are_refused_unless_a_conversion_is_named():
    gray, colour = torch.rand(4, 1, 8, 8), torch.rand(4, 3, 8, 8)
    with pytest.raises(ValueError, match="differ in channels"):
        open_sides(gray, {"colour": colour})
    sides = open_sides(gray, {"colour": colour}, preprocess=Preprocess(size=(8, 8), channels=3))
    assert sides.normal.shape[1] == 3


def test_a_share_is_drawn_by_the_seed():
    images = torch.arange(50.0).reshape(50, 1, 1, 1).expand(-1, 1, 8, 8) / 255
    first = open_sides(images, {"same": images}, count=10, seed=1)
    again = open_sides(images, {"same": images}, count=10, seed=1)
    other = open_sides(images, {"same": images}, count=10, seed=2)
    assert torch.equal(first.normal, again.normal)
    assert not torch.equal(first.normal, other.normal)
    assert len(first.normal.unique()) == 10


def test_tensors_of_another_shape_are_refused_by_name(identity_flow):
    density = identity_flow((1, 4, 4))
    with pytest.raises(ValueError, match=r"digits: expected images \[N, 1, 4, 4\], got \[5, 1, 8, 8\].*fakes a high"):
        checked_sides(density, torch.rand(5, 1, 4, 4), {"digits": torch.rand(5, 1, 8, 8)})
    with pytest.raises(ValueError, match="at least one other set"):
        checked_sides(density, torch.rand(5, 1, 4, 4), {})
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        checked_sides(density, torch.rand(5, 1, 4, 4), {"one": torch.rand(1, 1, 4, 4)})
    with pytest.raises(ValueError, match="may not be called 'normal'"):
        checked_sides(density, torch.rand(5, 1, 4, 4), {"normal": torch.rand(5, 1, 4, 4)})


def test_modes_are_put_back_part_by_part():
    module = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.BatchNorm1d(1)).train()
    module[1].eval()
    with evaluating(module):
        assert not module[0].training
    assert module[0].training
    assert not module[1].training
