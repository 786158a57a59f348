"""A flow of two couplings that whisper, and one that cannot."""

import json
import math

import pytest
import torch

from dracones import densities
from dracones.anatomy.co_adaptation import _derangement, co_adaptation


def test_what_the_first_coupling_wrote_the_second_reads(whispering_flow):
    images = torch.randint(60, 196, (80, 1, 2, 30), generator=torch.Generator().manual_seed(0)) / 255
    found = co_adaptation(whispering_flow(30, loudness=3.0), images, {"other": images.flip(2)}, count=80)
    first, second = found.layers
    # rows are independent and alike in spread: bottom' = bottom + 3 top has correlation 3/√10 with top, hybrid or not
    expected = 3 / math.sqrt(10)
    for name in ("normal", "other"):
        assert second.smuggled[name].value == pytest.approx(expected, abs=0.02)
        assert second.correlation[name].value == pytest.approx(expected, abs=0.02)
        # nobody came before the first coupling, so it can know nothing
        assert first.smuggled[name].low < 0.02
        assert abs(first.smuggled[name].value) < 0.06
        # error of bottom/3: a third of the rows' own spread (in logits)
        assert second.error[name].value < 0.3


def test_a_common_mean_image_is_nobodys_knowledge(whispering_flow):
    # all images share one picture; the parts that differ are independent
    picture = torch.linspace(40, 200, 30).expand(1, 1, 2, 30)
    noise = torch.randint(-20, 21, (60, 1, 2, 30), generator=torch.Generator().manual_seed(0))
    images = (picture + noise).round() / 255
    found = co_adaptation(whispering_flow(30), images, {"other": images.flip(0)})
    assert abs(found.layers[0].correlation["normal"].value) < 0.08
    assert abs(found.layers[0].smuggled["normal"].value) < 0.08


@pytest.mark.parametrize("preset", ["horizontal", "cycle", "checkerboard8"])
def test_every_full_resolution_flow(preset, random_images):
    density = densities.create("realnvp", preset, image_shape=(3, 6, 6), couplings=4, hidden=4, blocks=1)
    images = random_images(9, (3, 6, 6))
    found = co_adaptation(density, images, {"dark": images * 0.2})
    assert [layer.name for layer in found.layers] == ["0", "1", "2", "3"]
    found.figure().canvas.draw()
    json.dumps(found.to_json(), allow_nan=False)
    assert len(found.rows()) == 8


def test_multiscale_flows_show_their_first_couplings_and_others_are_refused(random_images):
    images = random_images(4, (1, 8, 8))
    multiscale = densities.create("realnvp", "tiny", image_shape=(1, 8, 8), hidden=4, blocks=1)
    assert len(co_adaptation(multiscale, images, {"x": images}).layers) == 3
    glow = densities.create("glow", image_shape=(1, 8, 8), steps=1, hidden=4)
    with pytest.raises(TypeError, match=r"couplings whose masks lie over the pixels; this Glow has none.*realnvp"):
        co_adaptation(glow, images, {"x": images})


def test_everyone_gets_another_ones_part():
    for count in (2, 3, 17):
        partner = _derangement(count, seed=0)
        assert sorted(partner.tolist()) == list(range(count))
        assert not (partner == torch.arange(count)).any()
