"""Ensembles whose members agree, and one whose members dispute."""

import json

import numpy as np
import pytest
import torch

from dracones import densities
from dracones.anatomy.ensembles import ensemble


def test_members_that_agree_are_no_better_together(normal_density, random_images):
    member = normal_density((1, 2, 2), torch.full((4,), 0.4), torch.eye(4) * 0.05)
    x, y = random_images(30, (1, 2, 2)), random_images(30, (1, 2, 2), seed=1, low=60, high=140)
    found = ensemble([member, member, member], x, {"y": y})
    alone = found.members[0]["y"].value
    for together in (found.mean, found.mixture, found.waic):
        assert together["y"].value == pytest.approx(alone, abs=1e-9)
    assert alone < 0.2
    assert found.disagreement["normal"].value == pytest.approx(0, abs=1e-12)


def test_waic_finds_what_members_dispute(normal_density, random_images):
    # two members that agree about gray images and not about dark ones
    members = [
        normal_density((1, 2, 2), torch.full((4,), 0.5), torch.eye(4) * variance) for variance in (0.02, 0.08, 0.5)
    ]
    gray, dark = random_images(40, (1, 2, 2), low=90, high=165), random_images(40, (1, 2, 2), seed=1, high=5)
    found = ensemble(members, gray, {"dark": dark})
    assert found.waic["dark"].value == 1
    assert found.disagreement["dark"].low > found.disagreement["normal"].high
    with torch.no_grad():
        each = np.stack([member.log_prob(torch.cat([gray, dark])).double().numpy() for member in members])
    deviation = each.std(0)[40:].mean()
    assert found.disagreement["dark"].value == pytest.approx(deviation)


def test_the_mixture_is_the_mixture(normal_density, random_images):
    members = [normal_density((1, 2, 2), torch.full((4,), mean), torch.eye(4) * 0.02) for mean in (0.2, 0.8)]
    x, y = random_images(20, (1, 2, 2)), random_images(25, (1, 2, 2), seed=1, high=80)
    found = ensemble(members, x, {"y": y})
    with torch.no_grad():
        score = [-torch.stack([m.log_prob(images) for m in members]).logsumexp(0) for images in (x, y)]
    wins = (score[1][:, None] > score[0][None]).double().mean()
    assert found.mixture["y"].value == pytest.approx(float(wins))


def test_figure_json_and_refusals(normal_density, random_images):
    member = normal_density((1, 2, 2), torch.full((4,), 0.4), torch.eye(4) * 0.05)
    x = random_images(9, (1, 2, 2))
    found = ensemble([member, member], x, {"x": x})
    found.figure().canvas.draw()
    json.dumps(found.to_json(), allow_nan=False)
    assert found.rows()[0]["member 2"] == found.members[1]["x"]
    with pytest.raises(ValueError, match="at least 2 densities, got 1"):
        ensemble([member], x, {"x": x})
    other = densities.create("glow", image_shape=(1, 4, 4), steps=1, hidden=4, levels=1)
    with pytest.raises(ValueError, match="images of different shapes"):
        ensemble([member, other], x, {"x": x})
