import math

import pytest
import torch

from dracones.rules import gradient_norm, intrinsic_dimension


def test_gradient_norm_of_a_gaussian():
    precision = torch.tensor([4.0, 1.0, 0.25])
    points = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    norms = gradient_norm(lambda y: -0.5 * (precision * y.square()).sum(1), points)
    torch.testing.assert_close(norms, (precision * points).norm(dim=1))
    assert not points.requires_grad


@pytest.mark.parametrize("rank", [0, 3, 20, 40])
def test_dimension_counts_large_singular_values_of_a_rotated_linear_map(rank):
    generator = torch.Generator().manual_seed(rank)
    left, _ = torch.linalg.qr(torch.randn(40, 40, generator=generator).double())
    right, _ = torch.linalg.qr(torch.randn(40, 40, generator=generator).double())
    singular = torch.cat([torch.full((rank,), 3.0), torch.full((40 - rank,), 0.01)]).double()
    matrix = left @ torch.diag(singular) @ right
    count = intrinsic_dimension(lambda z: z @ matrix.T, torch.zeros(2, 40).double(), threshold=1.0, probes=400, steps=4)
    assert count[0] == count[1]
    assert float(count[0]) == pytest.approx(rank, abs=0.6)


def test_dimension_estimate_of_a_spread_spectrum():
    """Singular values from 10 to 0.001, half of them above the threshold; a dozen steps see it to within a tenth."""
    singular = torch.logspace(1, -3, 60).double()
    threshold = float(singular[29] + singular[30]) / 2
    count = intrinsic_dimension(
        lambda z: z * singular, torch.zeros(1, 60).double(), threshold=threshold, probes=50, steps=60
    )
    assert float(count) == pytest.approx(30, abs=3)


def test_dimension_of_a_curved_map_depends_on_the_place():
    """x -> (x, small) for negative first entries, both directions wide for positive ones."""

    def decode(z):
        wide = torch.sigmoid(50 * z[:, :1])
        return torch.cat([z[:, :1], z[:, 1:] * (0.001 + wide)], 1)

    places = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]).double()
    counts = intrinsic_dimension(decode, places, threshold=0.1, probes=64)
    assert counts.tolist() == pytest.approx([1.0, 2.0], abs=0.2)


def test_dimension_refuses_nonsense():
    with pytest.raises(ValueError, match="must be positive"):
        intrinsic_dimension(lambda z: z, torch.zeros(1, 2), threshold=0.0)


def test_dimension_does_not_depend_on_the_batch():
    matrix = torch.randn(8, 8, generator=torch.Generator().manual_seed(0)).double() * math.sqrt(1 / 8)
    latents = torch.randn(3, 8, generator=torch.Generator().manual_seed(1)).double()

    def decode(z):
        return torch.tanh(z @ matrix)

    together = intrinsic_dimension(decode, latents, threshold=0.5)
    alone = torch.cat([intrinsic_dimension(decode, row[None], threshold=0.5) for row in latents])
    torch.testing.assert_close(together, alone)
