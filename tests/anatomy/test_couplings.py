"""Couplings whose predictions are known."""

import json
import math

import pytest
import torch

from dracones import densities
from dracones.anatomy.couplings import coupling_steps, couplings
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


def test_each_coupling_has_the_scale_of_the_normal_image_alone():
    top = torch.randint(90, 166, (3, 1, 8), generator=torch.Generator().manual_seed(0)).float()
    wild = torch.tensor([0.0, 255.0]).repeat(4).expand(3, 1, 8)
    alone = couplings(two_row_flow(), rows(top, top), {"other": rows(top, top)})
    beside = couplings(two_row_flow(), rows(top, top), {"other": rows(wild, wild)})
    assert beside.limit(beside.predictions, 0) == alone.limit(alone.predictions, 0)
    shown = beside.predictions["other"][0].abs().max()
    assert float(shown) > 2 * beside.limit(beside.predictions, 0)


def test_a_prediction_is_sharp_where_it_jumps_from_pixel_to_pixel():
    columns = torch.tensor([60.0, 60, 60, 60, 190, 190, 190, 190]).expand(4, 1, 8)
    jumps = torch.tensor([60.0, 190]).repeat(4).expand(4, 1, 8)
    (layer,) = couplings(two_row_flow(), rows(columns, columns), {"jumps": rows(jumps, jumps)}).layers
    # one of seven steps jumps by two deviations: (1/7)(2σ)² / 2σ²; every step does: 2
    assert layer.sharpness["normal"].value == pytest.approx(2 / 7, rel=0.02)
    assert layer.sharpness["jumps"].value == pytest.approx(2, rel=0.02)


def test_sharpening_is_of_the_last_two_couplings_against_the_first_two(random_images):
    density = densities.create("realnvp", "horizontal", image_shape=(1, 8, 8), hidden=4, blocks=1)
    chosen = list(density.flow.bijection)
    with torch.no_grad():
        for coupling in chosen[:2]:  # a constant shift is smooth: sharpness 0
            coupling.conditioner.last.bias.fill_(0.3)
        for coupling in chosen[-2:]:
            coupling.conditioner.last.parametrizations.weight.original0.fill_(1.0)
    found = couplings(density, random_images(6, (1, 8, 8)), {"x": random_images(4, (1, 8, 8))})
    assert found.layers[0].sharpness["normal"].value == 0
    ends = [layer.sharpness["normal"].value for layer in found.layers[-2:]]
    assert found.sharpening["normal"].value == pytest.approx(sum(ends) / 2)
    assert found.in_words()[0].startswith("On normal images −t is sharper than at the start in the last couplings (+")


def test_pictures_of_a_glow_show_a_pixel_its_own_channel(random_images):
    density = densities.create("glow", image_shape=(2, 4, 4), steps=1, hidden=4, levels=2).eval()
    first = next(each for each in density.flow.modules() if hasattr(each, "log_diagonal"))
    images = random_images(3, (2, 4, 4))
    found = couplings(density, images, {"other": images})
    assert found.mixed
    assert "1×1 convolutions mix the channels" in found.in_words()[0]
    # identity couplings: what the first level passes on is its normalised input, mixed; unmixed it is the picture again
    points, _ = density.dequantise(images)
    step = next(iter(coupling_steps(density, images)))
    mixed, own = step.in_image("output"), step.in_image("output", unmix=True)
    squeezed = density.flow.bijection.levels[0][0].encode(density.logit.encode(points)[0])[0]
    normalised = density.flow.bijection.levels[0][1].encode(squeezed)[0]
    torch.testing.assert_close(own, density.flow.bijection.levels[0][0].decode(normalised)[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(mixed, own, atol=1e-2)
    torch.testing.assert_close(mixed, density.flow.bijection.levels[0][0].decode(first.encode(normalised)[0])[0])


def test_where_channels_mix_the_scale_is_a_share_of_its_positions_sum(random_images):
    density = densities.create("glow", image_shape=(2, 4, 4), steps=1, hidden=4, levels=2)
    with torch.no_grad():
        for parameter in density.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.1)
    images = random_images(3, (2, 4, 4))
    found = couplings(density, images, {"other": images})
    for step, shown in zip(coupling_steps(density.eval(), images), found.scales["normal"], strict=True):
        assert float(shown.sum()) == pytest.approx(step.s[0].sum().item(), rel=1e-4, abs=1e-5)
    corner = found.scales["normal"][0][:, :2, :2]
    assert float(corner.std()) == 0
    assert float(found.scales["normal"][0].std()) > 0


def test_densities_without_couplings_are_refused_by_name(identity_flow, random_images):
    images = random_images(3, (1, 8, 8))
    with pytest.raises(TypeError, match="PixelCNN has none"):
        couplings(densities.create("pixelcnn", image_shape=(1, 8, 8)), images, {"other": images})
    with pytest.raises(TypeError, match="needs couplings; this FlowDensity has none"):
        couplings(identity_flow((1, 8, 8)), images, {"other": images})
