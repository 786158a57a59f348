"""Noise of a batch that several processes share: their union is what one draws."""

import pytest
import torch

from dracones import draws


@pytest.mark.parametrize("total", [8, 7, 1])
@pytest.mark.parametrize("draw", [draws.uniform, draws.normal, draws.levels])
def test_the_union_over_processes_is_what_one_draws(draw, total):
    alone = draw((total, 3, 2), torch.Generator().manual_seed(5))
    for rank in range(3):
        shared = draws.SharedGenerator("cpu", rank=rank, processes=3)
        shared.manual_seed(5)
        shared.total = total
        assert torch.equal(draw((len(range(rank, total, 3)), 3, 2), shared), alone[rank::3])


def test_images_along_another_dimension():
    alone = draws.normal((2, 6, 4), torch.Generator().manual_seed(0), dimension=1)
    shared = draws.SharedGenerator("cpu", rank=1, processes=2)
    shared.manual_seed(0)
    shared.total = 6
    assert torch.equal(draws.normal((2, 3, 4), shared, dimension=1), alone[:, 1::2])
    with pytest.raises(ValueError, match=r"this process holds 3 of 6 images; .* along dimension 0"):
        draws.normal((2, 3, 4), shared)
