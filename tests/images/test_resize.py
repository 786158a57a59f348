"""Resizing by matrices: equal to torch's, whole numbers stay whole, and one answer in every order of adding."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from dracones.images import Preprocess
from dracones.images.resize import enlarge, resize, resize_levels

_SIZES = [((64, 48), (32, 32)), ((63, 41), (32, 20)), ((20, 31), (40, 29)), ((128, 96), (17, 96))]


@pytest.mark.parametrize(("native", "size"), _SIZES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_equals_an_antialiased_resize(native, size, interpolation):
    images = torch.rand(2, 3, *native, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(images, size, mode=interpolation, antialias=True)
    found = resize(images.float(), size, interpolation=interpolation)
    assert (found - expected).abs().max() < 1.3e-6


@pytest.mark.parametrize(("native", "size"), _SIZES)
def test_nearest_picks_what_torch_picks(native, size):
    images = torch.rand(1, 1, *native)
    expected = F.interpolate(images, size, mode="nearest-exact")
    assert torch.equal(resize(images, size, interpolation="nearest"), expected)


@pytest.mark.parametrize(("native", "size"), _SIZES)
def test_levels_stay_within_one_of_the_rounded_resize(native, size):
    levels = torch.randint(0, 256, (2, 3, *native), generator=torch.Generator().manual_seed(0)).float()
    expected = F.interpolate(levels.double(), size, mode="bilinear", antialias=True).round()
    found = resize_levels(levels, size)
    assert torch.equal(found, found.round())
    assert (found - expected).abs().max() <= 1
    assert (found != expected).float().mean() < 0.05


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_levels_do_not_depend_on_the_order_of_adding(interpolation):
    """The same with every column in another place: no rounding within a sum."""
    levels = torch.randint(0, 256, (1, 1, 97, 203), generator=torch.Generator().manual_seed(0)).float()
    found = resize_levels(levels, (40, 60), interpolation=interpolation)
    in_double = resize_levels(levels.double(), (40, 60), interpolation=interpolation)
    assert torch.equal(found.double(), in_double)


@pytest.mark.parametrize("level", [0.0, 1.0, 127.0, 255.0])
def test_a_flat_image_keeps_its_level(level):
    assert torch.equal(resize_levels(torch.full((1, 1, 77, 51), level), (32, 32)), torch.full((1, 1, 32, 32), level))


def test_gray_is_pillows():
    colour = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    expected = torch.from_numpy(np.array(Image.fromarray(colour).convert("L"))).float()
    found = Preprocess(channels=1)(torch.from_numpy(colour.transpose(2, 0, 1).copy()).float() / 255, levels=256)[0]
    assert (found * 255 - expected).abs().max() < 1e-4


@pytest.mark.parametrize(("inside", "native"), [((8, 8), (30, 41)), ((40, 40), (30, 41)), ((16, 16), (16, 16))])
def test_a_map_is_enlarged_as_torch_does(inside, native):
    maps = torch.rand(2, *inside, dtype=torch.float64)
    expected = F.interpolate(maps[:, None], native, mode="bilinear", align_corners=False)[:, 0]
    assert (enlarge(maps.float(), native, inside) - expected).abs().max() < 1e-6


def test_gradients_flow_even_after_a_use_in_inference_mode():
    with torch.inference_mode():
        resize(torch.rand(1, 1, 19, 19), (7, 7))
    images = torch.rand(1, 1, 19, 19, requires_grad=True)
    resize(images, (7, 7)).sum().backward()
    assert images.grad is not None


@pytest.mark.parametrize("fit", ["stretch", "cover", "contain"])
def test_a_graph_with_free_sizes_is_the_same_function(fit):
    prepare = Preprocess(size=(24, 20), fit=fit, crop=(16, 16))

    class Both(torch.nn.Module):
        def forward(self, images):
            treated = prepare.treat(images, 256)
            return treated, prepare.restore(treated.mean(1), (images.shape[2], images.shape[3]))

    def levels(*shape):
        return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)) / 255

    free = {0: torch.export.Dim("b"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    graph = torch.export.export(Both(), (levels(2, 3, 37, 29),), dynamic_shapes=(free,), strict=False).module()
    for shape in ((1, 3, 24, 20), (3, 3, 60, 33), (5, 3, 20, 90)):
        images = levels(*shape)
        for found, expected in zip(graph(images), Both()(images), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-6, equal_nan=True)


def test_shapes_that_were_asked_for_first_leave_no_matrices_without_numbers():
    with torch.device("meta"):
        assert resize(torch.zeros(1, 1, 23, 29), (7, 5)).shape == (1, 1, 7, 5)
    images = torch.rand(1, 1, 23, 29, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(images, (7, 5), mode="bilinear", antialias=True)
    torch.testing.assert_close(resize(images, (7, 5)), expected, rtol=0, atol=1e-6)
