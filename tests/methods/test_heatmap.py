"""From maps to scores."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from dracones.methods.heatmap import at_size, blur, image_score, mean_at_size


def test_image_scores_of_a_map_worked_out_by_hand():
    heat = torch.arange(10.0).view(1, 2, 5)
    assert image_score(heat, "max", 0.1) == 9
    assert image_score(heat, "top", 0.2) == 8.5
    assert image_score(heat, "top", 0.001) == 9
    assert image_score(heat, "mean", 0.1) == 4.5


def test_blur_is_a_gaussian_filter():
    heat = torch.rand(2, 40, 50, generator=torch.Generator().manual_seed(0))
    expected = np.stack([gaussian_filter(image, 3.0, mode="mirror") for image in heat.numpy()])
    np.testing.assert_allclose(blur(heat, 3.0).numpy(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(blur(heat, 0.0), heat)


def test_blur_of_a_map_smaller_than_its_kernel_keeps_the_mass_in_range():
    heat = torch.rand(1, 6, 9, generator=torch.Generator().manual_seed(0))
    smooth = blur(heat, 4.0)
    assert smooth.shape == heat.shape
    assert smooth.min() >= heat.min()
    assert smooth.max() <= heat.max()


def test_levels_meet_at_the_images_size():
    coarse, fine = torch.full((1, 2, 2), 1.0), torch.full((1, 4, 4), 3.0)
    assert torch.equal(mean_at_size((fine, coarse), (8, 6)), torch.full((1, 8, 6), 2.0))
    assert at_size(fine, (4, 4)) is fine


@pytest.mark.parametrize("how", ["max", "top", "mean"])
def test_a_hotter_pixel_never_lowers_the_score(how):
    heat = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
    hotter = heat.clone()
    hotter[0, 3, 3] += 1
    assert image_score(hotter, how, 0.1) > image_score(heat, how, 0.1)
