"""The terms of a likelihood: they add up, and the one to blame is named."""

import json
import math

import pytest
import torch

from dracones import densities
from dracones.anatomy.decomposition import decompose


def test_identity_flow_has_its_terms_in_closed_form(identity_flow):
    # z = logit(m + (1 - 2m) y), y = (v + u)/256: log p(z) and log|det| written out anew
    density = identity_flow((1, 2, 1)).double()
    dark, light = torch.full((3, 1, 2, 1), 20 / 255).double(), torch.full((4, 1, 2, 1), 128 / 255).double()
    dark[0] += 1 / 255
    light[0] += 1 / 255
    found = decompose(density, dark, {"light": light})
    for images, name in ((dark, "normal"), (light, "light")):
        y = ((images * 255).round() + density.dequantise.noise) / 256
        inner = 0.05 + 0.9 * y
        z = torch.logit(inner)
        latent = (-0.5 * z**2 - 0.5 * math.log(2 * math.pi)).sum((1, 2, 3))
        volume = (math.log(0.9) - torch.log(inner) - torch.log1p(-inner)).sum((1, 2, 3)) - 2 * math.log(256)
        torch.testing.assert_close(torch.from_numpy(found.values[name]["log_prob_latent"]), latent)
        torch.testing.assert_close(torch.from_numpy(found.values[name]["log_det"]), volume)
        torch.testing.assert_close(torch.from_numpy(found.values[name]["log_prob"]), latent + volume)
    # mid-grey is where z is 0 (more latent) and the logit is flattest (less volume)
    latent, volume = found.parts
    assert latent.auroc["light"].value == 0
    assert volume.auroc["light"].value == 1
    assert found.decisive("light").name == "log_prob_latent"


@pytest.mark.parametrize("name", ["glow", "realnvp", "vae", "pixelcnn"])
def test_parts_add_up_to_the_total_for_every_density(name, random_images):
    options = {"glow": {"steps": 2, "hidden": 8}, "realnvp": {"hidden": 4, "blocks": 1}, "vae": {}, "pixelcnn": {}}
    density = densities.create(name, "tiny", image_shape=(1, 8, 8), **options[name])
    normal, other = random_images(8, (1, 8, 8)), random_images(6, (1, 8, 8), seed=1, high=40)
    found = decompose(density, normal, {"dark": other})
    for values in found.values.values():
        total = sum(values[part.name] for part in found.parts)
        assert total == pytest.approx(values[found.total.name], rel=1e-4, abs=1e-2)
    gaps = sum(part.gap["dark"].value for part in found.parts)
    assert gaps == pytest.approx(found.total.gap["dark"].value, rel=1e-4, abs=1e-2)
    assert sum(found.share("dark", part.name) for part in found.parts) == pytest.approx(1, abs=1e-3)
    assert len(found.rows()) == len(found.terms)
    json.dumps(found.to_json(), allow_nan=False)
    assert "values" not in found.to_json()
    found.figure().canvas.draw()
    found.auroc_figure().canvas.draw()


def test_levels_of_a_multiscale_flow_add_up(random_images):
    density = densities.create("glow", "tiny", image_shape=(1, 8, 8), steps=2, hidden=8, levels=2)
    found = decompose(density, random_images(5, (1, 8, 8)), {"dark": random_images(5, (1, 8, 8), high=9)})
    values = found.values["dark"]
    assert values["level0_log_prob_latent"] + values["level1_log_prob_latent"] == pytest.approx(
        values["log_prob_latent"], rel=1e-5
    )
    inner = values["level0_log_det"] + values["level1_log_det"] + values["input_log_det"] - 64 * math.log(256)
    assert inner == pytest.approx(values["log_det"], rel=1e-5, abs=1e-3)
    assert {"level0_log_det", "level1_log_prob_latent"} <= {term.name for term in found.details}


def test_small_sets_come_with_wide_intervals(identity_flow, random_images):
    density = identity_flow((1, 4, 4))
    few = decompose(density, random_images(3, (1, 4, 4)), {"x": random_images(3, (1, 4, 4), seed=1)}).total.auroc["x"]
    many = decompose(density, random_images(200, (1, 4, 4)), {"x": random_images(200, (1, 4, 4), seed=1)}).total.auroc[
        "x"
    ]
    assert few.high - few.low > 3 * (many.high - many.low)
