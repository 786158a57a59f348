import pytest
import torch

from dracones.densities import create
from dracones.rules import gather, gradient_norm, intrinsic_dimension


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
    for directions in (7, 40, 100):
        counts = intrinsic_dimension(
            lambda z: z @ matrix.T, torch.zeros(2, 40).double(), threshold=1.0, directions=directions
        )
        assert counts.tolist() == [rank, rank]


def test_dimension_of_a_curved_map_depends_on_the_place():
    """x -> (x, small) for negative first entries, both directions wide for positive ones."""

    def decode(z):
        return torch.cat([z[:, :1], z[:, 1:] * (0.001 + torch.sigmoid(50 * z[:, :1]))], 1)

    places = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]).double()
    assert intrinsic_dimension(decode, places, threshold=0.1).tolist() == [1.0, 2.0]


def test_dimension_is_that_of_autograds_jacobian():
    matrix = torch.randn(8, 8, generator=torch.Generator().manual_seed(0)).double()
    latents = torch.randn(3, 8, generator=torch.Generator().manual_seed(1)).double()

    def decode(z):
        return torch.tanh(z @ matrix)

    jacobians = [torch.autograd.functional.jacobian(decode, row[None])[0, :, 0] for row in latents]
    exact = [int((torch.linalg.svdvals(each) > 0.5).sum()) for each in jacobians]
    assert intrinsic_dimension(decode, latents, threshold=0.5).tolist() == exact
    assert intrinsic_dimension(decode, latents[:0], threshold=0.5).shape == (0,)


def test_dimension_refuses_nonsense():
    with pytest.raises(ValueError, match="must be positive"):
        intrinsic_dimension(lambda z: z, torch.zeros(1, 2), threshold=0.0)


def test_flow_density_gives_its_dimension_through_gather():
    """A flow that is the logit alone: all directions of the image are wide, but for pixels at the range's ends."""
    density = create("glow", image_shape=(1, 8, 8), steps=1).eval()
    with torch.no_grad():
        count = gather(density, torch.full((2, 1, 8, 8), 0.5), ["intrinsic_dimension"])["intrinsic_dimension"]
    assert count.tolist() == pytest.approx([64.0, 64.0], abs=1e-6)
