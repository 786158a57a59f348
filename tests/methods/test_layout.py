"""The density of leading principal components: exact, repeatable, a graph with a free batch."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from dracones.images import open_images
from dracones.methods.layout import Layout, leading_components


def images(count, shape=(3, 8, 8), seed=0):
    patterns = torch.rand(6, *shape, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(count, 6, generator=generator)
    noise = 0.05 * torch.rand(count, *shape, generator=generator)
    return (torch.einsum("ni,ichw->nchw", weights / 6, patterns) + noise).clamp(0, 1)


@pytest.fixture
def layout():
    found = Layout((3, 8, 8))
    found.fit(open_images(images(200)))
    return found


def test_components_are_scikit_learns():
    rows = images(300).flatten(1).double()
    basis, deviation = leading_components(rows - rows.mean(dim=0), 6)
    reference = PCA(6, svd_solver="full").fit(rows.numpy())
    np.testing.assert_allclose(np.abs((reference.components_ @ basis.numpy()).diagonal()), 1, atol=1e-3)
    np.testing.assert_allclose(deviation.numpy() ** 2, reference.explained_variance_, rtol=1e-3)


def test_it_is_the_gaussian_of_the_components(layout):
    seen = images(200)
    rows = torch.from_numpy(np.asarray(open_images(seen).to_tensor())).flatten(1).double()
    count = layout.basis.shape[1]
    reference = PCA(count, svd_solver="full").fit(rows.numpy())
    scores = torch.from_numpy(reference.transform(rows.numpy()[:9]))
    spread = torch.from_numpy(reference.explained_variance_).sqrt()
    expected = torch.distributions.Normal(0.0, spread).log_prob(scores).sum(dim=1)
    # the components of the noise, whose eigenvalues lie close together, may mix a little
    torch.testing.assert_close(layout(rows[:9].float().view(9, 3, 8, 8)).double(), expected, rtol=0.02, atol=1.0)


def test_another_layout_of_the_same_pixels_is_unlikely(layout):
    normal = images(100, seed=1)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(2))
    shuffled = normal.flatten(2)[:, :, order].view_as(normal)
    assert float((layout(normal).median() > layout(shuffled)).float().mean()) > 0.95


def test_equal_images_give_equal_components_and_no_global_generator_moves():
    before = torch.get_rng_state()
    one, other = Layout((3, 8, 8)), Layout((3, 8, 8))
    for each in (one, other):
        each.fit(open_images(images(60)))
    assert torch.equal(one.basis, other.basis)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("shape", "count"), [((1, 8, 8), 2), ((3, 96, 70), 30), ((1, 40, 130), 11)])
def test_few_or_large_images(shape, count):
    layout = Layout(shape)
    layout.fit(open_images(images(count, shape)))
    found = layout(images(4, shape, seed=3))
    assert found.shape == (4,)
    assert bool(torch.isfinite(found).all())


def test_images_that_never_change_leave_it_finite():
    layout = Layout((1, 8, 8))
    layout.fit(open_images(torch.full((20, 1, 8, 8), 0.5)))
    normal, other = layout(torch.stack([torch.full((1, 8, 8), 0.5), torch.zeros(1, 8, 8)]))
    assert bool(torch.isfinite(torch.stack([normal, other])).all())


def test_one_image_is_refused():
    with pytest.raises(ValueError, match="at least 2 images; got 1"):
        Layout((1, 8, 8)).fit(open_images(images(1, (1, 8, 8))))
