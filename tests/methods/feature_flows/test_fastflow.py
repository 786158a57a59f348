"""FastFlow's maths: golden score of a tiny frozen case, exact likelihood, any size."""

import numpy as np
import pytest
import torch
from torch import nn

import dracones
from dracones.methods.feature_flows.map_whitening import MapWhitening
from dracones.methods.heatmap import mean_at_size
from feature_case import SMALL, normals


def built(**options):
    method = dracones.create(
        "fastflow", **{**SMALL, "steps": 3, "normalisation": "image", "padding": "zeros", **options}
    ).method
    method.build((3, 64, 64))
    torch.manual_seed(7)
    for parameter in method.flows.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    return method.eval()


def maps(detector, seed=0, count=2):
    generator = torch.Generator().manual_seed(seed)
    widths, sizes = detector.extractor.channels, ((16, 16), (8, 8))
    return tuple(torch.randn(count, w, *s, generator=generator) for w, s in zip(widths, sizes, strict=True))


@pytest.mark.parametrize("heat", ["probability", "latent", "likelihood"])
def test_score_of_a_tiny_frozen_case_by_hand(heat):
    """Everything again in NumPy float64, one position at a time where it matters."""
    method = built(levels=(2,), kernels="3-1", steps=2, heat=heat)
    flow = method.flows[0]
    level = torch.randn(1, 64, 2, 2, generator=torch.Generator().manual_seed(0))
    x = level.numpy().astype(np.float64)[0]
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    log_det = np.zeros((2, 2))
    for step in flow.steps:
        first, last = step.coupling.conditioner.network[0], step.coupling.conditioner.network[-1]
        raw = correlate(np.maximum(correlate(x[:32], first), 0), last)
        s, t = 2.0 * np.tanh(0.1 * raw[:32]), 0.1 * raw[32:]
        y = np.concatenate((x[:32], x[32:] * np.exp(s) + t))
        scale, shift = step.affine.log_scale.detach().numpy(), step.affine.shift.detach().numpy()
        x = (y * np.exp(scale)[:, None, None] + shift[:, None, None])[step.mix.index.numpy()]
        log_det += s.sum(0) + scale.sum()
    energy = 0.5 * (x**2).mean(0)
    expected = {"probability": -np.exp(-energy), "latent": energy, "likelihood": energy - log_det / 64}[heat]
    with torch.no_grad():
        got = method.heat((level,), (2, 2))[0].numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_whitening_is_of_the_training_features_of_all_positions():
    images = normals(24)
    detector = dracones.create("fastflow", **SMALL, steps=2, epochs=1, normalisation="whitening", heat="likelihood")
    method = detector.fit(images).method
    seen = images[: detector.provenance["images"]["train"]]
    features = method.extractor(seen)
    for flow, level in zip(method.flows, features, strict=True):
        vectors = level.movedim(1, -1).flatten(0, -2).double()
        covariance = torch.cov(vectors.T)
        values = torch.linalg.eigvalsh(flow.whitening.matrix.double() @ covariance @ flow.whitening.matrix.double())
        assert 0.5 < float(values.max()) < 1.3  # other images of the same kind
        np.testing.assert_allclose(flow.whitening.matrix, flow.whitening.matrix.T, atol=1e-4)


def test_whitening_is_exact_in_small_batches_and_far_from_zero():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(12, 5, 4, 6, generator=generator) @ torch.randn(6, 6, generator=generator) + 1000
    whitening = MapWhitening(5, ridge=0.1)
    whitening.fit(maps.split(5))
    vectors = maps.double().movedim(1, -1).flatten(0, -2).numpy()
    covariance = np.cov(vectors.T)
    root = np.linalg.inv(covariance + 0.1 * covariance.trace() / 5 * np.eye(5))
    np.testing.assert_allclose(whitening.matrix.double() @ whitening.matrix.double(), root, rtol=1e-4)
    np.testing.assert_allclose(whitening(maps).mean(dim=(0, 2, 3)), 0, atol=1e-3)
    with pytest.raises(ValueError, match="at least 2 positions; got 0"):
        whitening.fit([])


def test_a_whitened_flow_starts_as_the_gaussian_and_is_saved(tmp_path):
    images = normals(24)
    options = {**SMALL, "steps": 2, "epochs": 1, "learning_rate": 1e-12, "normalisation": "whitening"}
    detector = dracones.create("fastflow", **options, heat="likelihood").fit(images)
    method = detector.method
    with torch.no_grad():
        maps = method.extractor(images[:2])
        levels = [
            0.5 * flow.whitening(level).square().mean(dim=1) for flow, level in zip(method.flows, maps, strict=True)
        ]
        heat = method.heat(maps, (64, 64))
        torch.testing.assert_close(heat, mean_at_size(levels, (64, 64)), rtol=1e-3, atol=1e-3)
    again = dracones.load(detector.save(tmp_path / "m.safetensors"))
    np.testing.assert_array_equal(again.predict(images[:3]).scores, detector.predict(images[:3]).scores)


def correlate(x, layer):
    """A zero-padded convolution by its definition."""
    weight, bias = layer.weight.detach().numpy().astype(np.float64), layer.bias.detach().numpy()
    reach = weight.shape[-1] // 2
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach)))
    out = np.zeros((len(weight), *x.shape[1:]))
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            patch = padded[:, row : row + 2 * reach + 1, column : column + 2 * reach + 1]
            out[:, row, column] = (weight * patch).sum((1, 2, 3)) + bias
    return out


def test_loss_is_the_exact_negative_log_likelihood():
    method = built()
    features = maps(method)
    expected = 0.0
    for flow, level in zip(method.flows, features, strict=True):
        z, log_det = nn.functional.layer_norm(level, level.shape[1:]), 0.0
        for step in flow.steps:
            z, share = step.encode(z)
            log_det = log_det + share
        log_prob = -0.5 * z.square().flatten(1).sum(1) + log_det
        expected = expected - log_prob.mean() / level[0].numel()
    torch.testing.assert_close(method.training_loss(features), expected, rtol=1e-4, atol=1e-5)


def test_a_batch_is_learnt_from_in_parts_of_the_size_that_is_asked_for(monkeypatch):
    features = maps(built(), count=5)
    whole = [flow.loss(level) for flow, level in zip(built().flows, features, strict=True)]
    detector, seen = built(images_at_once=2), []
    loss = type(detector.flows[0]).loss
    monkeypatch.setattr(type(detector.flows[0]), "loss", lambda flow, part: seen.append(len(part)) or loss(flow, part))
    torch.testing.assert_close(detector.training_loss(features), torch.stack(whole).sum())
    assert seen == [2, 2, 1] * len(features)


def test_flow_is_invertible_in_float64():
    method = built().double()
    for flow, level in zip(method.flows, maps(method), strict=True):
        normalised = nn.functional.layer_norm(level.double(), level.shape[1:])
        z, _ = flow(level.double())
        x, _ = flow.steps.decode(z)
        torch.testing.assert_close(x, normalised, rtol=1e-6, atol=1e-6)


def test_kernels_and_hidden_width_follow_the_options():
    method = built(kernels="3-1", hidden_ratio=0.5, steps=4)
    kernels = [step.coupling.conditioner.network[0].kernel_size[0] for step in method.flows[0].steps]
    assert kernels == [3, 1, 3, 1]
    read = method.extractor.channels[0] - method.extractor.channels[0] // 2
    assert method.flows[0].steps[0].coupling.conditioner.network[0].out_channels == read // 2


@pytest.mark.parametrize("name", ["fastflow", "msflow"])
def test_reflection_shows_the_border_no_other_content_than_the_inside(name):
    """Of a constant map every position looks alike to the convolutions; zeros around it show a border."""
    spreads = {}
    for padding in ("zeros", "reflect"):
        options = {"steps": (1, 1), "position_dims": 4} if name == "msflow" else {"steps": 1}
        method = dracones.create(name, **SMALL, **options, padding=padding).method
        method.build((3, 64, 64))
        step = method.flows[0][0] if name == "msflow" else method.flows[0].steps[0]
        network = step.coupling.conditioner
        torch.manual_seed(3)
        for parameter in network.parameters():
            nn.init.normal_(parameter, 0, 0.3)
        read = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d)).in_channels
        with torch.no_grad():
            out = network(torch.randn(1, read, 1, 1).expand(-1, -1, 6, 7))
        spreads[padding] = out.flatten(2).std(dim=2).max().item()
    assert spreads["reflect"] < 1e-5 < spreads["zeros"]


def test_a_map_too_small_to_be_reflected_is_refused_by_name():
    method = dracones.create("fastflow", **SMALL).method
    with pytest.raises(ValueError, match=r"2x2 positions at least; got levels of .*padding='zeros'"):
        method.build((3, 8, 8))


def test_transformer_features_work():
    detector = dracones.create(
        "fastflow",
        backbone="vit_tiny_patch16_224",
        weights="random",
        levels=(7,),
        kernels="3-1",
        hidden_ratio=0.16,
        steps=2,
    ).method
    detector.build((3, 64, 64))
    with torch.no_grad():
        scores = detector.eval()(torch.rand(2, 3, 64, 64))
    assert scores.map.shape == (2, 64, 64)


def test_published_size_of_resnet18():
    """2.6 M parameters with 3-1 kernels, 4.7 M with 3x3 alone (counted from the paper's description)."""
    for kernels, millions in (("3-1", 2.59), ("3", 4.66)):
        method = dracones.create("fastflow", weights="random", kernels=kernels, levels=(1, 2, 3)).method
        method.build((3, 64, 64))
        assert sum(p.numel() for p in method.flows.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


def test_an_image_scores_by_the_hottest_three_hundredths_of_its_map():
    detector = dracones.create("fastflow", **SMALL, steps=1, epochs=1).fit(normals(20))
    found = detector.predict(normals(2, seed=4))
    hottest = [np.sort(heat.ravel())[-round(0.03 * heat.size) :].mean() for heat in found.maps]
    np.testing.assert_allclose(found.scores, hottest, rtol=1e-5)
