"""What a detector of a density says beyond scores, and who refuses it."""

import numpy as np
import pytest
import torch
from PIL import Image

import dracones


def normals(count=60):
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(count, 1, 8, 8, generator=generator) * 255).round() / 255


@pytest.fixture(scope="module")
def glow():
    options = {"density": {"steps": 1, "hidden": 4}, "rule": "likelihood", "training": {"epochs": 1}}
    return dracones.create("glow", **options, false_alarm_rate=0.2).fit(normals(120))


def test_log_prob_is_the_density_s_and_comes_as_it_was_given(glow):
    x = normals(5)
    found = glow.log_prob(x)
    assert isinstance(found, torch.Tensor)
    torch.testing.assert_close(found, glow.method.density.log_prob(x).detach())
    pixels = (x[:, 0] * 255).byte().numpy()
    pictures = [Image.fromarray(each) for each in pixels]
    for given in (pixels, pictures):
        answer = glow.log_prob(given)
        assert isinstance(answer, np.ndarray)
        np.testing.assert_allclose(answer, found.numpy(), rtol=1e-5)
    np.testing.assert_allclose(glow.log_prob(pictures[2]), found.numpy()[2:3], rtol=1e-5)
    np.testing.assert_array_equal(glow.predict(pictures[2]).scores, glow.predict(x[2:3]).scores)


def test_what_is_said_is_said_in_eval_mode(glow):
    for ask in (lambda: glow.log_prob(normals(2)), lambda: glow.encode(normals(2)), glow.sample):
        glow.method.train()
        ask()
        assert not glow.method.density.training


def test_latents_are_those_that_the_image_is_decoded_from(glow):
    x = normals(4)
    latents = glow.encode(x)
    torch.testing.assert_close(glow.method.density.decode(latents), x, rtol=0, atol=1e-6)
    assert all(isinstance(level, np.ndarray) for level in glow.encode(x.numpy()))


def test_samples_follow_the_seed_the_temperature_and_the_kind(glow):
    drawn = glow.sample(16, seed=3)
    assert drawn.shape == (16, 1, 8, 8)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert torch.equal(drawn, glow.sample(16, seed=3))
    assert not torch.equal(drawn, glow.sample(16, seed=4))
    assert not torch.equal(drawn, glow.sample(16, seed=3, temperature=0.7))
    assert glow.log_prob(glow.sample(64, temperature=0.3)).mean() > glow.log_prob(glow.sample(64)).mean()
    pixels = glow.sample(16, seed=3, kind="numpy")
    np.testing.assert_array_equal(pixels[:, :, :, 0], (drawn[:, 0] * 255).round().byte().numpy())
    np.testing.assert_array_equal(np.asarray(glow.sample(16, seed=3, kind="pil")[5]), pixels[5, :, :, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"count": 0}, "count=0"), ({"temperature": 0}, "temperature=0"), ({"kind": "jpeg"}, "kind='jpeg' is unknown")],
)
def test_what_cannot_be_drawn_is_said(glow, options, message):
    with pytest.raises(ValueError, match=message):
        glow.sample(**options)


def test_a_detector_explains_itself(glow):
    few = [name for name in dracones.anatomy.analyses() if name not in ("rules", "terms")]
    found = glow.explain(normals(40), {"black": torch.zeros(20, 1, 8, 8)}, skip=few)
    assert found.model == "glow"


def test_others_refuse_by_name(glow):
    vae = dracones.create("vae", training={"epochs": 1}, rule="likelihood").fit(normals(120))
    assert vae.sample(2).shape == (2, 1, 8, 8)
    with pytest.raises(TypeError, match="vae has no latents that say all of an image; glow and realnvp"):
        vae.encode(normals(2))
    with pytest.raises(ValueError, match="not fitted"):
        dracones.create("glow").sample()
    knn = dracones.create("padim", backbone="mobilenetv1_025", weights="random", levels=(1,))
    knn.fit(torch.rand(20, 3, 32, 32))
    for verb in (knn.log_prob, knn.encode):
        with pytest.raises(TypeError, match=r"padim learns no density of images, so it has no .*glow, pixelcnn"):
            verb(torch.rand(1, 3, 32, 32))
