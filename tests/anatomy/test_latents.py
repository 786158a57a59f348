"""Latent images of flows whose latents are known."""

import json

import pytest
import torch

from dracones import densities
from dracones.anatomy.latents import latent_images, neighbour_correlation, row_correlation


def test_an_identity_flow_shows_the_logit_of_the_image(identity_flow, random_images):
    density = identity_flow((1, 6, 6))
    normal, other = random_images(4, (1, 6, 6)), random_images(4, (1, 6, 6), seed=1)
    found = latent_images(density, normal, {"other": other}, draws=3)
    points, _ = density.dequantise(normal)
    torch.testing.assert_close(found.latents["normal"], torch.logit(0.05 + 0.9 * points))
    # the picture itself is left, so the latent image is the image, almost
    assert found.numbers["normal"].likeness.value > 0.95
    assert found.train_mode is None
    assert found.numbers["normal"].neighbours_train_mode is None


def test_the_mean_over_draws_converges_to_the_expected_logit(identity_flow):
    density = identity_flow((1, 4, 4), margin=0.05).double()
    images = torch.full((2, 1, 4, 4), 3 / 255, dtype=torch.float64)
    images[1] = 200 / 255
    found = latent_images(density, images, {"other": images}, draws=200)
    u = (torch.arange(20000) + 0.5) / 20000
    for row, level in ((0, 3), (1, 200)):
        expected = torch.logit(0.05 + 0.9 * (level + u.double()) / 256).mean()
        spread = torch.logit(0.05 + 0.9 * (level + u.double()) / 256).std()
        got = found.averaged["normal"][row].mean()
        assert float((got - expected).abs()) < 5 * float(spread) / (16 * 200) ** 0.5 + 1e-5


def test_latents_lie_over_the_pixels_they_came_from(random_images):
    # a Glow whose couplings are still the identity and whose convolutions are made so: squeezes alone move things
    density = densities.create("glow", image_shape=(1, 8, 8), steps=1, hidden=4, levels=2).eval()
    for layer in density.flow.modules():
        if hasattr(layer, "log_diagonal"):
            with torch.no_grad():
                size = layer.channels
                layer.row_order.copy_(torch.arange(size))
                layer.lower.zero_()
                layer.upper.zero_()
                layer.log_diagonal.zero_()
                layer.sign.fill_(1)
    images = random_images(3, (1, 8, 8))
    found = latent_images(density, images, {"other": images}, draws=1)
    points, _ = density.dequantise(images)
    torch.testing.assert_close(found.latents["normal"], torch.logit(0.05 + 0.9 * points), rtol=1e-4, atol=1e-4)


def test_of_a_glow_the_mixing_is_undone_in_the_pictures_and_left_in_the_numbers(random_images):
    density = densities.create("glow", image_shape=(2, 8, 8), steps=2, hidden=4, levels=2).eval()
    images = random_images(4, (2, 8, 8))
    found = latent_images(density, images, {"other": images}, draws=2)
    points, _ = density.dequantise(images)
    # the couplings are still the identity and ActNorm untrained: all that happened to the logits was mixing
    torch.testing.assert_close(found.latents["normal"], torch.logit(0.05 + 0.9 * points), rtol=1e-4, atol=1e-4)
    raw = density.flow.latents_as_image(density.encode(images))
    assert not torch.allclose(found.latents["normal"], raw, atol=0.1)
    assert found.numbers["normal"].neighbours.value == pytest.approx(neighbour_correlation(raw).mean().item())
    # one channel is drawn, the last, as the authors plot it
    torch.testing.assert_close(found.layers()["mean of 2 draws"]["other"], found.averaged["other"][:, 1:])
    images_drawn = [axis.images[0] for axis in found.figure().axes if axis.images]
    assert {drawn.get_clim() for drawn in images_drawn[len(images_drawn) // 3 :]} == {(-2.0, 2.0)}


def test_train_mode_uses_the_batch_and_leaves_the_density_as_it_was(random_images):
    density = densities.create("realnvp", "tiny", image_shape=(1, 8, 8), hidden=4, blocks=1).eval()
    with torch.no_grad():
        for name, parameter in density.named_parameters():
            if "last" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.3)
    before = {name: value.clone() for name, value in density.state_dict().items()}
    images = random_images(8, (1, 8, 8), low=100, high=140)
    found = latent_images(density, images, {"other": images[:4]}, draws=2)
    assert found.train_mode is not None
    assert not torch.allclose(found.train_mode["normal"], found.latents["normal"])
    # another batch, other statistics: the same image looks different
    assert not torch.allclose(found.train_mode["normal"][:4], found.train_mode["other"])
    for name, value in density.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not density.training
    found.figure().canvas.draw()
    json.dumps(found.to_json(), allow_nan=False)
    assert len(found.rows()) == 2


def test_neighbour_correlation_of_noise_and_of_stripes():
    noise = torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert float(neighbour_correlation(noise).mean().abs()) < 0.02
    columns = torch.randn(16, 1, 1, 16, generator=torch.Generator().manual_seed(0)).expand(-1, 1, 16, -1)
    # columns agree downwards (correlation 1) and not sideways (0): together about a half
    assert 0.35 < float(neighbour_correlation(columns).mean()) < 0.6


def test_row_correlation_is_numpys():
    first, second = torch.randn(5, 30, dtype=torch.float64), torch.randn(5, 30, dtype=torch.float64)
    expected = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(first, second, strict=True)]
    torch.testing.assert_close(row_correlation(first, second), torch.stack(expected))
    assert row_correlation(torch.ones(1, 4), torch.randn(1, 4)).item() == 0


def test_densities_without_latents_are_refused_by_name(random_images):
    images = random_images(3, (1, 8, 8))
    for name in ("vae", "pixelcnn"):
        density = densities.create(name, image_shape=(1, 8, 8))
        with pytest.raises(TypeError, match=r"analysis of latents needs .* of a flow; (VAE|PixelCNN) has none.*glow"):
            latent_images(density, images, {"other": images})
