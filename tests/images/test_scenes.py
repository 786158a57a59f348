"""Photographs, crops, cut-outs, composed scenes with exact masks, noise sets."""

import numpy as np
import pytest
import torch

from dracones.images import (
    blob_cutouts,
    builtin_photograph,
    builtin_photographs,
    coin_cutouts,
    compose_scenes,
    crops,
    halves,
    open_images,
)
from dracones.images.builtin.scenes import Cutout, ScenesSource
from dracones.images.builtin.synthetic import SyntheticSource


@pytest.mark.parametrize("name", builtin_photographs())
def test_every_photograph_is_there(name):
    photo = builtin_photograph(name)
    assert photo.shape[0] in (1, 3)
    assert min(photo.shape[1:]) >= 180
    assert 0 <= photo.min() < photo.max() <= 1
    assert torch.equal((photo * 255).round() / 255, photo)


def test_photographs_equal_scikit_images_own():
    import skimage.data

    for name in ("gravel", "coins", "astronaut"):
        theirs = np.atleast_3d(getattr(skimage.data, name)()).transpose(2, 0, 1)
        assert np.array_equal((builtin_photograph(name) * 255).round().numpy(), theirs)


def test_crops_are_cut_out_of_the_photograph_and_repeat():
    photo = torch.arange(100 * 120, dtype=torch.float32).view(1, 100, 120)
    cut = crops(photo, (10, 20), 50, seed=3)
    assert cut.shape == (50, 1, 10, 20)
    corner = cut[:, 0, 0, 0].long()
    assert torch.equal(cut - corner.view(-1, 1, 1, 1), photo[None, :, :10, :20].expand(50, -1, -1, -1))
    assert torch.equal(cut, crops(photo, (10, 20), 50, seed=3))
    assert not torch.equal(cut, crops(photo, (10, 20), 50, seed=4))
    assert (corner // 120).max() <= 90
    assert crops(photo, (100, 120), 2, seed=0).shape == (2, 1, 100, 120)
    before = torch.random.get_rng_state()
    crops(photo, 10, 5)
    assert torch.equal(before, torch.random.get_rng_state())


def test_halves_do_not_overlap():
    photo = torch.arange(12.0).view(1, 1, 12)
    left, right = halves(photo, 0.75)
    assert torch.equal(torch.cat([left, right], 2), photo)
    with pytest.raises(ValueError, match="leaves one side"):
        halves(photo, 1.0)


def test_coins_are_round_and_real():
    coins = coin_cutouts()
    assert len(coins) == 24
    photo = builtin_photograph("coins")[0]
    for coin in coins:
        solid = coin.alpha >= 0.5
        height, width = (int(solid.any(d).sum()) for d in (1, 0))
        assert 0.8 < height / width < 1.25
        # A disc fills pi / 4 of its square.
        assert 0.68 < float(solid.sum()) / (height * width) < 0.85
        assert coin.pixels[0][solid].mean() > photo.mean()
        assert (coin.alpha[0].max(), coin.alpha[:, -1].max()) == (0, 0)


def test_blobs_have_each_an_outline_of_their_own():
    blobs = blob_cutouts(builtin_photograph("brick"), 4, 40, seed=1)
    areas = [int((blob.alpha >= 0.5).sum()) for blob in blobs]
    assert len(set(areas)) == 4
    assert all(0.3 * 1600 < area < 1600 for area in areas)
    assert all(blob.alpha[0].max() < 0.01 and blob.alpha[20, 20] > 0.99 for blob in blobs)


@pytest.mark.parametrize("objects", ["coins", "blobs"])
def test_the_mask_is_exact(objects):
    """A white object on black: the mask is where the scene is at least half white, and nothing else is touched."""
    cutouts = coin_cutouts() if objects == "coins" else blob_cutouts(builtin_photograph("brick"), 5, 40, seed=0)
    white = [Cutout(torch.ones_like(cutout.pixels), cutout.alpha) for cutout in cutouts]
    scenes = compose_scenes(torch.zeros(1, 200, 200), white, 96, 20, seed=2, share=0.7)
    assert scenes.labels.tolist() == [1] * 14 + [0] * 6
    assert torch.equal(scenes.masks, (scenes.images[:, 0] * 255).round() >= 128)
    for mask, label in zip(scenes.masks, scenes.labels, strict=True):
        assert bool(mask.any()) == bool(label)
    extents = [max(int(m.any(0).sum()), int(m.any(1).sum())) for m in scenes.masks[:14]]
    assert 0.13 * 96 < min(extents) <= max(extents) < 0.42 * 96


def test_scenes_as_a_collection():
    scenes = compose_scenes(builtin_photograph("coffee"), coin_cutouts(), (40, 64), 6, seed=1)
    images = open_images(ScenesSource(scenes))
    assert torch.equal(images.to_tensor(), scenes.images)
    assert torch.equal(images.mask(0), scenes.masks[0])
    assert images.has_masks
    assert images.labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert images.read(0).shape == (3, 40, 64)
    again = compose_scenes(builtin_photograph("coffee"), coin_cutouts(), (40, 64), 6, seed=1)
    assert torch.equal(again.images, scenes.images)


@pytest.mark.parametrize("arguments", [{"share": 1.5}, {"extent": (0.5, 0.2)}, {"extent": (0.2, 1.2)}])
def test_impossible_scenes(arguments):
    with pytest.raises(ValueError, match=r"share=.*extent="):
        compose_scenes(torch.zeros(1, 64, 64), coin_cutouts()[:1], 32, 2, **arguments)
    with pytest.raises(ValueError, match="0 objects"):
        compose_scenes(torch.zeros(1, 64, 64), [], 32, 2)


def test_uniform_and_gaussian_noise_are_odins():
    from scipy.stats import kstest, norm

    uniform = open_images(SyntheticSource("uniform", 50, (3, 16, 16), seed=1)).to_tensor().flatten().numpy()
    assert kstest(uniform, "uniform").pvalue > 1e-3
    gaussian = open_images(SyntheticSource("gaussian", 50, (3, 16, 16), seed=1)).to_tensor().flatten().numpy()
    assert (gaussian.min(), gaussian.max()) == (0, 1)
    for edge in (0.0, 1.0):
        # P(N(0.5, 1) < 0) = P(> 1) = 0.3085
        assert np.mean(gaussian == edge) == pytest.approx(norm.cdf(-0.5), abs=0.01)
    inner = gaussian[(gaussian > 0) & (gaussian < 1)]
    inside = (norm.cdf(inner - 0.5) - norm.cdf(-0.5)) / (norm.cdf(0.5) - norm.cdf(-0.5))
    assert kstest(inside, "uniform").pvalue > 1e-3


def test_constant_images_are_constant():
    images = open_images(SyntheticSource("constant", 200, (3, 8, 8), seed=1)).to_tensor()
    assert torch.equal(images, images[:, :, :1, :1].expand_as(images))
    assert images.unique().numel() > 200
    assert torch.equal((images * 255).round() / 255, images)


@pytest.mark.parametrize("kind", ["uniform", "gaussian", "constant"])
def test_a_synthetic_image_depends_on_its_number_alone(kind):
    images = open_images(SyntheticSource(kind, 20, (1, 8, 8), seed=5))
    together = images.to_tensor()
    assert torch.equal(torch.stack([images.read(i) for i in range(20)]), together)
    assert torch.equal(images.subset([7, 3]).to_tensor(), together[[7, 3]])
    assert not torch.equal(open_images(SyntheticSource(kind, 20, (1, 8, 8), seed=6)).to_tensor(), together)
    assert len({images.subset([i]).fingerprint() for i in range(20)}) == 20


def test_impossible_noise():
    with pytest.raises(ValueError, match="no synthetic images called 'pink'; available: uniform"):
        SyntheticSource("pink", 1, (1, 8, 8))
    with pytest.raises(ValueError, match="at least 1"):
        SyntheticSource("uniform", 0, (1, 8, 8))
