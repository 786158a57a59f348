"""Couplings whose predictions are known."""

import json
import math

import pytest
import torch

from dracones import densities
from dracones.anatomy.couplings import couplings
from dracones.densities import FlowDensity
from dracones.flows import AffineCoupling, Chain, Flow, halves


class Constant(torch.nn.Module):
    """Predicts for each changed row the other row, t = −x, and a constant log-scale."""

    def __init__(self, s, sign=-1.0):
        super().__init__()
        self.s, self.sign = s, sign

    def forward(self, x):
        return torch.cat([torch.full_like(x, self.s), self.sign * x.roll(1, 2)], 1)


def two_row_flow(s=0.3, shift_first=True, sign=-1.0):
    shape = (1, 2, 8)
    coupling = AffineCoupling(halves(shape), Constant(s, sign), shift_first=shift_first)
    return FlowDensity(shape, Flow(Chain(coupling), shape=shape), levels=1).eval()


def rows(top, bottom):
    return torch.stack([top, bottom], 2).round() / 255


def test_a_coupling_that_copies_is_right_where_rows_agree_and_wrong_where_they_oppose():
    top = torch.randint(40, 216, (6, 1, 8), generator=torch.Generator().manual_seed(0)).float()
    found = couplings(two_row_flow(), rows(top, top), {"opposed": rows(top, 255 - top)})
    (layer,) = found.layers
    # the noise of dequantisation is below one level
    assert layer.correlation["normal"].value > 0.999
    assert layer.correlation["opposed"].value < -0.999
    assert layer.unexplained["normal"].value < 0.001
    # error x − (−x) = 2x about a mean near zero: four times the spread
    assert layer.unexplained["opposed"].value == pytest.approx(4, rel=0.35)


def test_log_scale_and_images_are_the_couplings_own():
    top = torch.randint(40, 216, (3, 1, 8), generator=torch.Generator().manual_seed(0)).float()
    density = two_row_flow(s=0.3)
    found = couplings(density, rows(top, top), {"other": rows(top, top)})
    # s = limit · tanh(raw), limit 1 at the start: eight changed positions
    s = math.tanh(0.3)
    assert found.layers[0].log_scale["normal"].value == pytest.approx(8 * s, rel=1e-5)
    shown_s, shown_t = found.scales["normal"][0], found.predictions["normal"][0]
    torch.testing.assert_close(shown_s, torch.tensor([0.0, s]).reshape(1, 2, 1).expand(1, 2, 8))
    points, _ = density.dequantise(rows(top, top))
    logits = torch.logit(0.05 + 0.9 * points)[0]
    torch.testing.assert_close(shown_t[:, 1], logits[:, 0])
    assert not shown_t[:, 0].any()
    activation = found.activations["normal"][0]
    assert float(activation.mean()) == pytest.approx(0, abs=1e-5)
    assert float(activation.std()) == pytest.approx(1, abs=1e-5)


def test_the_other_convention_predicts_the_same():
    top = torch.randint(40, 216, (4, 1, 8), generator=torch.Generator().manual_seed(0)).float()
    # x exp(s) + t with t = −x exp(s): the copy again
    s = math.tanh(0.3)
    found = couplings(two_row_flow(shift_first=False, sign=-math.exp(s)), rows(top, top), {"other": rows(top, top)})
    assert found.layers[0].unexplained["normal"].value < 0.001


@pytest.mark.parametrize(
    ("name", "preset", "count"), [("glow", "tiny", 4), ("realnvp", "tiny", 10), ("realnvp", "cycle", 8)]
)
def test_every_flow_shows_all_its_couplings_at_the_images_size(name, preset, count, random_images):
    options = {"steps": 2, "levels": 2, "hidden": 4} if name == "glow" else {"hidden": 4, "blocks": 1}
    density = densities.create(name, preset, image_shape=(1, 8, 8), **options)
    found = couplings(density, random_images(3, (1, 8, 8)), {"dark": random_images(3, (1, 8, 8), high=30)})
    assert len(found.layers) == count
    for what in (found.predictions, found.scales, found.activations):
        assert all(tuple(image.shape) == (1, 8, 8) for images in what.values() for image in images)
    found.figure().canvas.draw()
    found.image_figure().canvas.draw()
    json.dumps(found.to_json(), allow_nan=False)
    assert len(found.rows()) == 2 * count


def test_densities_without_couplings_are_refused_by_name(identity_flow, random_images):
    images = random_images(3, (1, 8, 8))
    with pytest.raises(TypeError, match="PixelCNN has none"):
        couplings(densities.create("pixelcnn", image_shape=(1, 8, 8)), images, {"other": images})
    with pytest.raises(TypeError, match="needs couplings; this FlowDensity has none"):
        couplings(identity_flow((1, 8, 8)), images, {"other": images})
