"""Every rule on what it can be fed, fitted on one half and judged on the other."""

import json

import pytest
import torch

from dracones import densities, rules
from dracones.anatomy.repairs import repairs


def test_plain_likelihood_is_the_densitys_and_typicality_repairs_what_is_too_likely(normal_density, random_images):
    density = normal_density((1, 8, 8), torch.full((64,), 0.5), torch.eye(64) * 0.05)
    x, gray = random_images(80, (1, 8, 8)), random_images(30, (1, 8, 8), seed=1, low=120, high=136)
    found = repairs(density, x, {"gray": gray})
    assert found.auroc["likelihood"]["gray"].value == 0
    assert found.auroc["typicality"]["gray"].value == 1
    assert found.auroc["auto"]["gray"].value == 1
    assert found.fitted_on == 40
    assert found.judged_on == {"normal": 40, "gray": 30}
    assert found.best("gray") != "likelihood"
    assert "flow" in found.not_possible["volume"]
    assert "VAE" in found.not_possible["likelihood_regret"]
    assert set(found.auroc) | set(found.not_possible) == set(rules.names())
    found.figure().canvas.draw()
    json.dumps(found.to_json(), allow_nan=False)
    means = [row["mean"] for row in found.rows()]
    assert means == sorted(means, reverse=True)


def test_no_image_both_fits_and_judges(normal_density, random_images):
    # every second normal image is odd: seen in the fit, absent among the judged
    density = normal_density((1, 4, 4), torch.full((16,), 0.5), torch.eye(16) * 0.05)
    x = random_images(40, (1, 4, 4), low=100, high=156)
    x[0::2] = 0.5
    found = repairs(density, x, {"gray": torch.full((9, 1, 4, 4), 0.5)})
    # rules fitted on gray images take gray images for usual, and the judged normal ones for the odd ones
    assert found.auroc["typicality"]["gray"].value == 0


def test_background_ensemble_and_own_score_join_when_given(normal_density, random_images):
    density = normal_density((1, 4, 4), torch.full((16,), 0.5), torch.eye(16) * 0.05)
    wide = normal_density((1, 4, 4), torch.full((16,), 0.5), torch.eye(16) * 0.5)
    x, y = random_images(20, (1, 4, 4)), random_images(20, (1, 4, 4), seed=1, high=20)
    found = repairs(
        density, x, {"y": y}, background=wide, members=[density, wide], own=("brightness", lambda i: -i.mean((1, 2, 3)))
    )
    assert {"likelihood_ratio", "waic", "brightness"} <= set(found.auroc)
    assert found.auroc["brightness"]["y"].value == 1


@pytest.mark.parametrize("name", ["vae", "pixelcnn"])
def test_other_densities_feed_what_they_can(name, random_images):
    options = (
        {"stages": 1, "width": 4, "latents": 2, "regret_steps": 2} if name == "vae" else {"features": 6, "layers": 2}
    )
    density = densities.create(name, image_shape=(1, 8, 8), **options)
    found = repairs(density, random_images(20, (1, 8, 8)), {"dark": random_images(8, (1, 8, 8), high=9)})
    assert {"likelihood", "typicality", "complexity", "auto"} <= set(found.auroc)
    assert ("likelihood_regret" in found.auroc) == (name == "vae")
