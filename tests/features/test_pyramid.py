"""One image at several sizes, turned about."""

import pytest
import torch

from dracones.features import FeatureCache, FeatureExtractor, ImagePyramid, RotatedEmbedding, rotated


@pytest.fixture(scope="module")
def pyramid():
    return ImagePyramid(FeatureExtractor("mobilenetv1_025", levels=(1,), weights="random"), 3)


def images(count=2, height=64, width=64):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_scales_are_the_backbone_on_smaller_images(pyramid):
    x = images(height=64, width=96)
    maps = pyramid(x)
    assert pyramid.map_sizes(64, 96) == ((16, 24), (8, 12), (4, 6))
    assert torch.equal(maps[0], pyramid.extractor(x)[0])
    half = torch.nn.functional.interpolate(x, size=(32, 48), mode="bilinear", antialias=True)
    assert torch.equal(maps[1], pyramid.extractor(half)[0])
    assert pyramid.channels == (32, 32, 32)


def test_the_papers_pyramid_keeps_every_second_pixel(pyramid):
    x = images(height=64, width=96)
    nearest = ImagePyramid(pyramid.extractor, 3, "nearest")
    maps = nearest(x)
    assert torch.equal(maps[1], pyramid.extractor(x[:, :, ::2, ::2])[0])
    assert torch.equal(maps[2], pyramid.extractor(x[:, :, ::4, ::4])[0])
    assert nearest.fingerprint() == pyramid.fingerprint() + "/nearest"


def test_gradient_reaches_the_image_through_every_scale(pyramid):
    x = images(1).requires_grad_()
    for level in pyramid(x):
        (gradient,) = torch.autograd.grad(level.sum(), x, retain_graph=True)
        assert gradient.abs().sum() > 0
    assert not any(level.requires_grad for level in pyramid(images(1)))


@pytest.mark.parametrize(("degrees", "quarter_turns"), [(90.0, 1), (180.0, 2), (270.0, 3), (-90.0, 3)])
def test_quarter_turns_are_exact(degrees, quarter_turns):
    x = images()
    torch.testing.assert_close(rotated(x, degrees), torch.rot90(x, quarter_turns, (2, 3)), rtol=1e-4, atol=1e-4)


def test_rotation_of_an_oblong_image_keeps_shapes_and_comes_back():
    y, x = torch.meshgrid(torch.linspace(-1, 1, 80), torch.linspace(-1.5, 1.5, 120), indexing="ij")
    disk = torch.exp(-((x - 0.3) ** 2 + (y + 0.2) ** 2) / 0.02)[None, None]
    turned = rotated(disk, 37.0)
    row, column = divmod(int(turned.argmax()), 120)
    angle = torch.deg2rad(torch.tensor(37.0))
    expected_x = 0.3 * angle.cos() - 0.2 * angle.sin()  # counter-clockwise on screen, where y points down
    expected_y = -0.3 * angle.sin() - 0.2 * angle.cos()
    assert float(x[row, column]) == pytest.approx(float(expected_x), abs=0.03)
    assert float(y[row, column]) == pytest.approx(float(expected_y), abs=0.03)
    torch.testing.assert_close(rotated(turned, -37.0), disk, rtol=0, atol=0.05)
    assert rotated(disk, 360.0) is disk


def test_embedding_holds_the_mean_of_every_scale_for_every_angle(pyramid):
    x = images()
    (rows,) = RotatedEmbedding(pyramid, (0.0, 90.0))(x)
    assert rows.shape == (2, 2 * 96)
    expected = torch.cat([level.mean((2, 3)) for level in pyramid(torch.rot90(x, 1, (2, 3)))], 1)
    torch.testing.assert_close(rows[:, 96:], expected, rtol=1e-3, atol=1e-4)


def test_cache_tells_angles_and_scales_apart(pyramid, tmp_path):
    class Few:
        preprocess = "none"

        def __len__(self):
            return 2

        def fingerprint(self, *, progress=None):
            return "few"

    cache, few = FeatureCache(tmp_path), Few()
    other = ImagePyramid(pyramid.extractor, 2)
    keys = {
        cache.key(network, few)
        for network in (pyramid, other, RotatedEmbedding(pyramid, (0.0,)), RotatedEmbedding(pyramid, (1.0,)))
    }
    assert len(keys) == 4


def test_several_levels_and_no_scale_are_refused(pyramid):
    with pytest.raises(ValueError, match=r"one level of the backbone; got levels=\(1, 2\)"):
        ImagePyramid(FeatureExtractor("mobilenetv1_025", levels=(1, 2), weights="random"), 3)
    with pytest.raises(ValueError, match="one scale at least; got scales=0"):
        ImagePyramid(pyramid.extractor, 0)


def test_an_image_too_small_for_the_smallest_scale_is_named_by_its_own_size(pyramid):
    with pytest.raises(ValueError, match=r"images of 8x64 are 2x16 at the smallest of 3 scales"):
        pyramid(torch.rand(1, 3, 8, 64))
