"""CS-Flow: exact inverse and log-det in float64, any sizes, score by hand."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import jacrev

import dracones
from dracones.methods.feature_flows.csflow import CrossScaleConv, CrossScaleStep
from feature_case import SMALL, anomalies, normals

TINY = {**SMALL, "levels": (1,), "preset": "fast", "hidden": 8, "kernels": (3, 5)}


def step(channels=5, seed=0):
    torch.manual_seed(seed)
    widths = (channels,) * 3
    generator = torch.Generator().manual_seed(seed)
    made = CrossScaleStep(widths, hidden=8, kernel=3, clamp=3.0, generator=generator)
    for parameter in made.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    return made.double()


SIZES = ((4, 6), (2, 3), (1, 2))  # the last is not an exact half


def maps(channels=5, count=2):
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(count, channels, *size, generator=generator, dtype=torch.float64) for size in SIZES)


def test_inverse_and_log_det_are_exact():
    flow, x = step(), maps()
    with torch.no_grad():
        z, log_det = flow.encode(x)
        back, same = flow.decode(z)
    for a, b in zip(back, x, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    for a, b in zip(same, log_det, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    assert [tuple(share.shape) for share in log_det] == [(2, *size) for size in SIZES]

    def flat(vector):
        parts = vector.split([5 * h * w for h, w in SIZES])
        out, _ = flow.encode(tuple(part.view(1, 5, *size) for part, size in zip(parts, SIZES, strict=True)))
        return torch.cat([level.flatten() for level in out])

    jacobian = jacrev(flat)(torch.cat([level[0].flatten() for level in x]))
    total = torch.stack([share[0].sum() for share in log_det]).sum()
    torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1].detach(), total, rtol=1e-9, atol=1e-9)


def test_every_scale_hears_its_neighbours_only():
    network = CrossScaleConv((3, 3, 3), (4, 4, 4), 6, 3)
    nn.init.ones_(network.gain)
    generator = torch.Generator().manual_seed(0)
    plain = [torch.randn(1, 3, 8 >> s, 8 >> s, generator=generator) for s in range(3)]
    changed = [plain[0] + 1, plain[1], plain[2]]
    same = [torch.equal(a, b) for a, b in zip(network(plain), network(changed), strict=True)]
    assert same == [False, False, True]
    changed = [plain[0], plain[1], plain[2] + 1]
    same = [torch.equal(a, b) for a, b in zip(network(plain), network(changed), strict=True)]
    assert same == [True, False, False]


def built(**options):
    method = dracones.create("csflow", **{**TINY, **options}).method
    method.build((3, 64, 64))
    torch.manual_seed(5)
    for parameter in method.steps.parameters():
        nn.init.normal_(parameter, 0, 0.1)
    return method.eval()


def test_score_and_loss_follow_the_formulas():
    method = built()
    images = anomalies(2)[0]
    features = method.extractor(images)
    with torch.no_grad():
        latents, log_dets = method.encode(features)
        scores = method(images)
        loss = method.training_loss(features)
    flat = np.concatenate([z.flatten(1).numpy() for z in latents], 1)
    np.testing.assert_allclose(scores.image.numpy(), 0.5 * (flat**2).mean(1), rtol=1e-4)
    coarse = 0.5 * (latents[0].numpy() ** 2).mean(1)
    assert scores.map.shape == (2, 64, 64)
    assert scores.map.max() <= coarse.max() + 1e-5
    log_det = sum(share.flatten(1).sum(1).numpy() for share in log_dets)
    expected = ((0.5 * (flat**2).sum(1) - log_det) / flat.shape[1]).mean()
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    back = method.decode(latents)
    for a, b in zip(back, features, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3)


def test_other_image_scores_come_from_the_map():
    method = built(image_score="max")
    with torch.no_grad():
        scores = method(anomalies(2)[0])
    torch.testing.assert_close(scores.image, scores.map.amax((1, 2)))


def test_a_new_flow_only_permutes():
    method = dracones.create("csflow", **TINY).method
    method.build((3, 64, 64))
    features = method.eval().extractor(normals(1))
    latents, log_dets = method.encode(features)
    for a, b in zip(latents, features, strict=True):
        torch.testing.assert_close(a.sort(1).values, b.sort(1).values)
    assert not any(share.any() for share in log_dets)


def test_sizes_that_do_not_halve():
    method = built()
    with torch.no_grad():
        scores = method(normals(1, side=100))
    assert scores.map.shape == (1, 100, 100)
    assert torch.isfinite(scores.image).all()


def test_fit_finds_the_square_and_saves(tmp_path):
    detector = dracones.create("csflow", **TINY, epochs=8, learning_rate=2e-3).fit(normals(40))
    images, mask = anomalies()
    loud, calm = detector.predict(images), detector.predict(normals(8, seed=9))
    assert loud.scores.mean() > calm.scores.max()
    heat = np.stack(loud.maps)
    assert heat[:, mask].mean() > heat[:, ~mask].mean()
    again = dracones.load(detector.save(tmp_path / "m.safetensors"))
    np.testing.assert_array_equal(again.predict(images).scores, loud.scores)


def test_reflection_shows_the_networks_no_zeros():
    torch.manual_seed(0)
    zeros, reflected = (CrossScaleConv((2, 2), (2, 2), 4, 3, padding) for padding in ("zeros", "reflect"))
    reflected.load_state_dict(zeros.state_dict())
    for network in (zeros, reflected):
        nn.init.ones_(network.gain)
    flat = [torch.ones(1, 2, 8, 8), torch.ones(1, 2, 4, 4)]
    for at_border, even in zip(zeros(flat), reflected(flat), strict=True):
        assert even.flatten(2).std(dim=2).max() < 1e-6, "an even map stays even up to its border"
        assert at_border.flatten(2).std(dim=2).max() > 0.01


@pytest.mark.parametrize("options", [{"padding": "reflect"}, {"pyramid": "nearest"}])
def test_the_options_learn_score_and_come_back(options, tmp_path):
    detector = dracones.create("csflow", **TINY, scales=2, epochs=1, **options).fit(normals(20))
    images = anomalies(3)[0]
    loaded = dracones.load(detector.save(tmp_path / "m.safetensors"))
    scores = detector.predict(images).scores
    assert np.array_equal(loaded.predict(images).scores, scores)
    plain = dracones.create("csflow", **TINY, scales=2, epochs=1).fit(normals(20))
    assert not np.allclose(plain.predict(images).scores, scores)


def test_maps_too_small_to_be_reflected_are_named():
    with pytest.raises(
        ValueError, match=r"padding='reflect' needs maps of 3x3 positions at least; got scales of .*2, 2"
    ):
        dracones.create("csflow", **{**TINY, "levels": (3,)}, scales=2, epochs=1, padding="reflect").fit(normals(20))
