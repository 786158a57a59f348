"""Density × rule as one detector: every density, and the rules that need more than one density."""

import numpy as np
import pytest
import torch

import dracones
from dracones.densities import bits_per_dim
from dracones.methods import build

SMALL = {
    "glow": {"steps": 1, "hidden": 4},
    "realnvp": {"hidden": 4, "blocks": 1},
    "vae": {"latent": 2, "hidden": 4},
    "pixelcnn": {"hidden": 4, "layers": 1},
}


def stripes(count=60, seed=0):
    """Images of 8 levels that rise from left to right, with noise."""
    noise = torch.randint(0, 20, (count, 1, 8, 8), generator=torch.Generator().manual_seed(seed))
    return (torch.arange(8) * 20 + noise + 40) / 255


def small(name, **options):
    density = {key: value for key, value in SMALL[name].items() if key in options_of(name)}
    return dracones.create(name, density=density, epochs=2, batch_size=16, **options)


def options_of(name):
    from inspect import signature

    from dracones.densities.registry import DENSITIES

    return signature(DENSITIES[name].builder).parameters


@pytest.mark.parametrize("name", list(SMALL))
def test_every_density_with_the_default_rule(name, tmp_path):
    detector = small(name).fit(stripes())
    assert detector.config.rule == "auto"
    found = detector.predict(stripes(5, seed=1)).scores
    assert np.isfinite(found).all()
    loaded = dracones.load(detector.save(tmp_path / "m.safetensors"))
    np.testing.assert_allclose(loaded.predict(stripes(5, seed=1)).scores, found, rtol=1e-5)


def test_auto_says_which_witness_spoke():
    detector = small("glow").fit(stripes())
    assert detector.method.voices == (
        "all statistics together",
        "likelihood, given its statistics",
        "latents, given its statistics",
        "layout, given its statistics",
        "likelihood, given a codec's size",
    )
    turned = detector.predict(stripes(5, seed=1).transpose(2, 3))
    assert {verdict.witness for verdict in turned} <= set(detector.method.voices)
    assert small("glow", rule="likelihood").fit(stripes()).predict(stripes(2, seed=1))[0].witness is None


def test_explain_names_the_witness_that_spoke():
    detector = small("glow").fit(stripes())
    turned = stripes(30, seed=1).transpose(2, 3)
    skipped = ("couplings", "second order", "checks", "latents", "graying", "complexity", "co-adaptation")
    found = detector.explain(stripes(30, seed=2), {"turned": turned}, skip=skipped)
    heard = found.findings["rules"].loudest["turned"]
    assert heard in detector.method.voices


@pytest.fixture
def backbone(tmp_path):
    """Random weights of a ResNet-18 as a file, as somebody without a hub would bring their own."""
    from safetensors.torch import save_file
    from torchvision.models import resnet18

    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(resnet18().state_dict(), tmp_path / "resnet18.safetensors")
    return {"backbone": "resnet18", "weights": str(tmp_path / "resnet18.safetensors"), "channels": 3}


def test_an_embedding_is_one_witness_more_in_the_same_file(tmp_path, backbone):
    detector = small("glow", **backbone).fit(stripes().expand(-1, 3, -1, -1))
    assert detector.method.voices[-1] == "embedding"
    images = stripes(5, seed=1).expand(-1, 3, -1, -1)
    found = detector.predict(images).scores
    (tmp_path / "resnet18.safetensors").unlink()  # the file of the model brings the network along
    loaded = dracones.load(detector.save(tmp_path / "m.safetensors"))
    np.testing.assert_allclose(loaded.predict(images).scores, found, rtol=1e-4)
    assert loaded.config.backbone == "resnet18"


def test_a_rule_that_reads_no_embedding_refuses_the_network(backbone):
    with pytest.raises(ValueError, match="rule 'likelihood' reads no embedding: leave out backbone"):
        small("glow", rule="likelihood", **backbone).fit(stripes())


def test_the_auto_of_before_is_refused_by_name(tmp_path):
    from safetensors import safe_open

    detector = small("glow").fit(stripes())
    names = [name for name in detector.method.saved_state() if not name.startswith("layout.")]
    with pytest.raises(ValueError, match=r"its rule is the auto of before 'layout_log_prob'.*fit it again"):
        detector.method.refuse_outdated(names)
    with safe_open(detector.save(tmp_path / "m.safetensors"), "pt") as file:
        assert any(name.startswith("state.layout.") for name in file.keys())  # noqa: SIM118 (not a mapping)


@pytest.mark.parametrize("name", ["glow", "pixelcnn"])
def test_likelihood_scores_are_nats_of_the_8_bit_image(name):
    detector = small(name, rule="likelihood").fit(stripes())
    images = stripes(4, seed=1)
    expected = detector.method.density.bits_per_dim(images).detach()
    scores = torch.from_numpy(detector.predict(images).scores)
    torch.testing.assert_close(bits_per_dim(-scores, 64), expected.float(), rtol=1e-4, atol=1e-4)


def test_an_ensemble_is_trained_from_different_seeds_and_saved(tmp_path):
    detector = small("glow", rule="waic", members=3).fit(stripes())
    weights = [
        next(p for p in density.parameters() if p.ndim > 1)
        for density in (detector.method.density, *detector.method.others)
    ]
    assert len(weights) == 3
    assert not torch.equal(weights[0], weights[1])
    assert [run["steps"] for run in detector.provenance["training"]] == [6, 6, 6]
    loaded = dracones.load(detector.save(tmp_path / "m.safetensors"))
    images = stripes(3, seed=1)
    np.testing.assert_allclose(loaded.predict(images).scores, detector.predict(images).scores, rtol=1e-5)


def test_members_begin_with_different_weights():
    detector = small("glow", rule="waic", members=2)
    build(detector.method, (1, 8, 8))
    pairs = zip(detector.method.density.parameters(), detector.method.others[0].parameters(), strict=True)
    assert not all(torch.equal(one, other) for one, other in pairs)


def test_members_are_made_only_for_a_rule_that_compares_them():
    assert len(small("glow", rule="likelihood", members=3).fit(stripes()).method.others) == 0
    with pytest.raises(ValueError, match="set members to 2 or more"):
        small("glow", rule="waic").fit(stripes())


def test_the_background_model_sees_noise_and_the_ratio_takes_it_off(tmp_path):
    detector = small("glow", rule="likelihood_ratio", background_noise=0.5).fit(stripes())
    images = stripes(4, seed=1)
    with torch.no_grad():
        ratio = detector.method.density.log_prob(images) - detector.method.background.log_prob(images)
    np.testing.assert_allclose(detector.predict(images).scores, -ratio.numpy(), rtol=1e-4, atol=1e-3)
    assert (ratio > 0).all(), "a background model of half noise should know these images less well"
    loaded = dracones.load(detector.save(tmp_path / "m.safetensors"))
    np.testing.assert_allclose(loaded.predict(images).scores, detector.predict(images).scores, rtol=1e-5)


def test_a_rule_that_the_density_cannot_serve_is_refused():
    with pytest.raises(ValueError, match="likelihood_regret"):
        small("glow", rule="likelihood_regret").fit(stripes())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "tinny"}, "no preset 'tinny'; did you mean 'tiny'"),
        ({"rule": "typicalty"}, "unknown rule 'typicalty'; did you mean 'typicality'"),
        ({"rule": "latent", "rule_options": {"side": "two"}}, "rule 'latent'.*'side'"),
        ({"density": {"step": 3}}, "no option 'step'; did you mean 'steps'"),
    ],
)
def test_wrong_names_are_refused_when_the_detector_is_made(options, message):
    with pytest.raises(ValueError, match=message):
        dracones.create("glow", **options)
