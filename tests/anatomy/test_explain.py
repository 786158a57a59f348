"""The whole of it: analyses, refusals, page and JSON, on a model that prefers gray."""

import json
import re

import pytest
import torch

import dracones
from dracones import anatomy, densities


@pytest.fixture(scope="module")
def patterns():
    """Contrasting patterns as normal images, gray ones as others."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (80, 1, 4, 4), generator=generator).repeat_interleave(2, 2).repeat_interleave(2, 3)
    normal = (signs * 160 + 40 + torch.randint(0, 16, signs.shape, generator=generator)) / 255
    gray = torch.randint(110, 146, (40, 1, 8, 8), generator=generator) / 255
    return normal, gray


@pytest.fixture(scope="module")
def detector(patterns, tmp_path_factory):
    """A Glow of the normal patterns, fitted for a moment, and its file."""
    model = dracones.create("glow", rule="likelihood", density={"steps": 2, "hidden": 8}, epochs=3, size=(8, 8))
    model.fit(patterns[0], device="cpu")
    return model, model.save(tmp_path_factory.mktemp("model") / "glow.safetensors")


def test_every_analysis_is_found_or_refused_by_name(detector, patterns):
    normal, gray = patterns
    given = {"members": [detector[0]], "against": "gray", "train": normal, "train_steps": 1}
    found = anatomy.explain(detector[0], normal, {"gray": gray}, count=30, **given)
    assert set(found.findings) | set(found.refused) == set(anatomy.analyses())
    assert set(found.refused) == {"co-adaptation"}
    assert found.counts == {"normal": 30, "gray": 30}
    assert "this model, as saved (likelihood)" in found.findings["rules"].auroc
    assert found.verdict.text in json.dumps(found.to_json(), allow_nan=False, ensure_ascii=False)
    html = anatomy.page(found).to_html()
    for finding in found.findings.values():
        assert finding.title in html
        # a caption says what to look for
        assert finding.look_for[:40].replace("'", "&#39;") in html
    assert "What this model does not support" in html
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html), "the page must hold everything itself"


@pytest.mark.parametrize("name", ["vae", "pixelcnn"])
def test_other_densities_refuse_what_they_cannot_show_and_explain_the_rest(name, patterns):
    options = (
        {"stages": 1, "width": 4, "latents": 2, "regret_steps": 1} if name == "vae" else {"features": 6, "layers": 2}
    )
    density = densities.create(name, image_shape=(1, 8, 8), **options)
    found = anatomy.explain(density, patterns[0], {"gray": patterns[1]}, count=20, skip=["checks"])
    assert {"second order", "latents", "couplings", "co-adaptation"} == set(found.refused)
    assert all("glow" in reason or "realnvp" in reason for reason in found.refused.values())
    assert {"rules", "terms", "complexity", "graying"} == set(found.findings)
    anatomy.page(found).to_html()


def test_images_of_another_size_are_refused_unless_a_resizing_is_named(patterns):
    density = densities.create("glow", image_shape=(1, 8, 8), steps=1, hidden=4)
    large = torch.rand(20, 1, 12, 12)
    few = [name for name in anatomy.analyses() if name not in ("rules", "terms")]
    with pytest.raises(ValueError, match=r"large: 12x12 pixels where 8x8 are expected and no common resizing is named"):
        anatomy.explain(density, patterns[0], {"large": large}, skip=few)
    found = anatomy.explain(density, patterns[0], {"large": large}, skip=few, resize=True)
    assert found.sides.others["large"].shape == (20, 1, 8, 8)
    assert "leaves a trace" in found.notes[0]
    assert "leaves a trace" in anatomy.page(found).to_html()


def test_one_analysis_that_the_images_do_not_allow_does_not_spoil_the_others(patterns):
    density = densities.create("glow", image_shape=(1, 8, 8), steps=1, hidden=4)
    skip = [name for name in anatomy.analyses() if name not in ("rules", "terms", "graying", "negative training")]
    # three images of the other set are enough to be compared, and too few to be parted for training
    few = {"few": patterns[1][:3]}
    found = anatomy.explain(density, patterns[0], few, skip=skip, against="few")
    assert set(found.findings) == {"rules", "terms", "graying"}
    assert "few: 3 images are too few to hold out" in found.refused["negative training"]


def test_refusals(patterns):
    density = densities.create("glow", image_shape=(1, 8, 8), steps=1, hidden=4)
    with pytest.raises(ValueError, match="unknown analyses"):
        anatomy.explain(density, patterns[0], {"gray": patterns[1]}, skip=["colours"])
    with pytest.raises(ValueError, match="against='digits' is not one of the other sets, gray"):
        anatomy.explain(density, patterns[0], {"gray": patterns[1]}, against="digits")
    with pytest.raises(TypeError, match=r"linear has none\. Models that have one: glow, realnvp, vae, pixelcnn"):
        anatomy.density_of(torch.nn.Linear(1, 1))


def test_the_same_seed_gives_the_same_numbers(patterns):
    density = densities.create("glow", image_shape=(1, 8, 8), steps=1, hidden=4)
    skip = ["graying", "latents", "couplings"]
    first, second = (
        anatomy.explain(density, patterns[0], {"gray": patterns[1]}, count=20, skip=skip).to_json() for _ in range(2)
    )
    assert first == second


def test_flows_of_other_masks_are_trained_where_images_to_train_on_are_given():
    density = densities.create("glow", image_shape=(1, 8, 8), steps=1, hidden=4)
    x = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    skip = [name for name in anatomy.analyses() if name not in ("rules", "terms", "inductive bias")]
    assert "inductive bias" not in anatomy.explain(density, x[:40], {"black": 0 * x[:20]}, skip=skip).findings
    found = anatomy.explain(density, x[:40], {"black": 0 * x[:20]}, skip=skip, train=x[20:], train_steps=1)
    assert {run.steps for run in found.findings["inductive bias"].runs} == {1}
    assert "AUROC of black: checkerboard" in anatomy.page(found).to_html()
