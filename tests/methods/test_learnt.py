"""Whether a density has learnt its images: against the uniform one, a codec, its base, its own curve."""

import warnings

import pytest
import torch

import dracones
from dracones import densities
from dracones.methods.learnt import Learnt, learnt


def smooth(count, side=16):
    """Slopes of brightness: simple to any codec."""
    generator = torch.Generator().manual_seed(0)
    place = torch.linspace(0, 1, side)
    start, slope = torch.rand(2, count, 1, 1, 1, generator=generator)
    images = 0.2 + 0.3 * start + 0.4 * slope * place[None, None, None, :]
    return (images.expand(-1, 1, side, side) * 255).round() / 255


def test_an_untrained_density_fails_and_a_trained_one_passes():
    untrained = densities.create("glow", image_shape=(1, 16, 16), steps=2, hidden=8).eval()
    found = learnt(untrained, smooth(20))
    assert not found.passed
    assert found.codec == "webp"
    assert found.bits > found.codec_bits
    detector = dracones.create(
        "glow", density={"steps": 2, "hidden": 8}, training={"epochs": 40, "learning_rate": 3e-3}, rule="likelihood"
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="this glow has not learnt")
        detector.fit(smooth(300))
    assert learnt(detector.method.density, smooth(20)).passed


def test_noise_without_any_structure_is_learnt_by_knowing_nothing():
    # every code needs 8 bits: a density that needs about 8 has learnt all there is
    assert Learnt(8.05, "webp", 11.0, 0.02).passed
    assert not Learnt(8 * 1.26, "webp", 11.0).passed


@pytest.mark.parametrize(
    ("gap", "passed"), [(0.4, True), (-0.4, True), (0.6, False), (-0.6, False), (torch.nan, False)]
)
def test_latents_must_be_those_of_the_base(gap, passed):
    assert Learnt(3.0, "webp", 4.0, gap).passed is passed


def test_a_number_that_is_none_passes_nothing():
    assert not Learnt(torch.nan, "webp", 4.0).passed


def test_latent_gap_is_zero_for_draws_of_the_base():
    density = densities.create("glow", image_shape=(1, 8, 8), steps=1, hidden=4).eval()
    drawn = density.sample(200, generator=torch.Generator().manual_seed(0))
    assert abs(learnt(density, drawn).latent_gap) < 0.1


def test_a_curve_that_still_falls_is_said():
    history = [{"epoch": epoch, "validation_loss": loss} for epoch, loss in enumerate([5.0, 4.0, 3.6], 1)]
    density = densities.create("glow", image_shape=(1, 8, 8), steps=1, hidden=4).eval()

    def falling(**run):
        return learnt(density, torch.rand(4, 1, 8, 8), training=[{"stopped_by": "epochs", "history": history, **run}])

    assert falling().falling == pytest.approx(0.1)
    assert "10.0 %" in falling().cautions[0]
    assert falling(stopped_by="patience").falling is None
    flat = [*history, {"epoch": 4, "validation_loss": 3.599}]
    assert falling(history=flat).falling is None
    assert falling(history=history[:1]).falling is None


def test_it_changes_nothing_in_the_density():
    density = densities.create("glow", image_shape=(1, 8, 8), steps=1, hidden=4).train()
    before = {name: value.clone() for name, value in density.state_dict().items()}
    learnt(density, torch.rand(20, 1, 8, 8))
    assert density.training
    assert all(torch.equal(value, before[name]) for name, value in density.state_dict().items())


def test_fit_says_that_nothing_was_learnt():
    detector = dracones.create("glow", density={"steps": 1, "hidden": 4}, training={"epochs": 1}, rule="likelihood")
    with pytest.warns(RuntimeWarning, match=r"this glow has not learnt its images: it needs .* Train longer"):
        detector.fit(smooth(60))
