"""DifferNet: exact flow, score by hand, gradient map against finite differences."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import jacrev

import dracones
from dracones.features import rotated
from dracones.methods.feature_flows.differnet import DifferNet, even_angles
from feature_case import SMALL, anomalies, normals

TOP, BOTTOM = slice(32, 64), slice(0, 32)
TINY = {
    **SMALL,
    "levels": (1,),
    "preset": "fast",
    "hidden": 16,
    "blocks": 2,
    "scales": 2,
    "rotations": 3,
    "training_rotations": 3,
}


def built(**options):
    method = dracones.create("differnet", **{**TINY, **options}).method
    method.build((3, 64, 64))
    torch.manual_seed(3)
    for parameter in method.flow.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    return method.eval()


def test_flow_inverts_and_its_log_det_is_the_jacobians():
    method = built()
    flow = method.flow.double()
    x = torch.randn(2, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z, log_det = flow.encode(x)
        back, same = flow.decode(z)
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(same, log_det, rtol=1e-9, atol=1e-9)
    jacobian = jacrev(lambda v: flow.encode(v[None])[0][0])(x[0])
    torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], log_det[0].detach(), rtol=1e-8, atol=1e-8)


def test_score_by_hand():
    """Each block again in NumPy: permutation, then (x1, x2) -> x1 e^s2 + t2, then x2 e^s1 + t1."""
    method = built()
    images = anomalies(2)[0]
    expected = np.zeros(2)
    with torch.no_grad():
        got = method(images).image.numpy()
    for angle in (0.0, 120.0, 240.0):
        maps = method.extractor(rotated(images, angle))
        v = np.concatenate([m.double().numpy().mean((2, 3)) for m in maps], 1)
        norm = method.flow[0]
        v = (v + norm.shift.detach().numpy()) * np.exp(norm.log_scale.detach().numpy())
        for permutation, first, second in zip(*[iter(list(method.flow)[1:])] * 3, strict=True):
            v = v[:, permutation.index.numpy()]
            for coupling, reads, changes in (
                (first, slice(32, 64), slice(0, 32)),
                (second, slice(0, 32), slice(32, 64)),
            ):
                h = v[:, reads]
                for layer in coupling.conditioner.network:
                    if isinstance(layer, nn.Linear):
                        h = h @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
                    else:
                        h = np.maximum(h, 0)
                s, t = h[:, :32], h[:, 32:]
                v[:, changes] = v[:, changes] * np.exp(3 * 2 / np.pi * np.arctan(s / 3)) + t
        expected += (v**2).mean(1) / 3
    np.testing.assert_allclose(got, expected, rtol=1e-3)


def test_heat_map_is_the_gradient_of_the_likelihood():
    method = built(map_rotations=1, blur_sigma=0)
    images = anomalies(1)[0]
    heat = method._gradient_map(images)[0]
    assert heat.shape == (64, 64)
    assert (heat >= 0).all()

    def energy(x):
        with torch.no_grad():
            return float(method.energy(method.embedded((0.0,))(x)[0]))

    row, column = divmod(int(heat.argmax()), 64)
    pulls = []
    for channel in range(3):
        up, down = images.clone(), images.clone()
        up[0, channel, row, column] += 0.01
        down[0, channel, row, column] -= 0.01
        pulls.append(abs(energy(up) - energy(down)) / 0.02)
    assert float(heat[row, column]) == pytest.approx(np.mean(pulls) ** 2, rel=0.1)


def test_fit_knows_other_images_and_saves(tmp_path):
    options = {**TINY, "map_rotations": 2, "training_rotations": 6}
    detector = dracones.create("differnet", **options, epochs=25, learning_rate=5e-3).fit(normals(40))
    # an untrained backbone's averages hardly see a small square: another texture altogether
    noise = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    loud, calm = detector.predict(noise), detector.predict(normals(8, seed=9))
    assert loud.scores.min() > calm.scores.max()
    assert loud.maps[0].shape == (64, 64)
    again = dracones.load(detector.save(tmp_path / "m.safetensors"))
    np.testing.assert_array_equal(again.predict(noise).scores, loud.scores)


def test_no_map_rotations_no_map_and_even_angles():
    with torch.no_grad():
        assert built(map_rotations=0)(normals(1)).map is None
    assert even_angles(4) == [0, 90, 180, 270]


def test_papers_defaults():
    config = DifferNet.Config(preset="best")  # `create` takes the backbone that pip brought, where none is named
    assert (config.backbone, config.size, config.hidden, config.rotations) == ("alexnet", (448, 448), 2048, 64)
    assert (config.training.betas, config.training.learning_rate) == ((0.8, 0.8), 2e-4)


def test_angles_never_learnt_from_are_refused():
    with pytest.raises(ValueError, match="rotations=3 does not divide training_rotations=4"):
        built(training_rotations=4)


def test_whitened_flow_starts_as_the_mahalanobis_distance(tmp_path):
    whitening = {"scaling": "whitening", "ridge": 0.05, "training_rotations": 4, "rotations": 4}
    options = {**TINY, **whitening, "validation_share": 0.0, "calibration_share": 0.0}
    images, others = normals(40), normals(4, seed=9)
    detector = dracones.create("differnet", **options, epochs=1, learning_rate=1e-9)
    found = detector.fit(images).predict(others)

    def turns(of):
        maps = [detector.method.extractor(rotated(of, angle)) for angle in (0, 90, 180, 270)]
        rows = [torch.cat([level.double().mean((2, 3)) for level in levels], 1) for levels in maps]
        return torch.stack(rows).numpy()

    with torch.no_grad():
        learnt = turns(images).reshape(-1, 64)
        seen = turns(others)
    covariance = np.cov(learnt.T)
    covariance += np.eye(64) * 0.05 * np.diag(covariance).mean()
    distance = seen - learnt.mean(0)
    expected = np.einsum("rbi,ij,rbj->b", distance, np.linalg.inv(covariance), distance) / 64 / 4
    np.testing.assert_allclose(found.scores, expected, rtol=0.02)
    again = dracones.load(detector.save(tmp_path / "m.safetensors"))
    np.testing.assert_array_equal(again.predict(others).scores, found.scores)


def test_says_up_front_whether_maps_come():
    assert not dracones.create("differnet", **{**TINY, "map_rotations": 0}).gives_maps
    assert dracones.create("differnet", **{**TINY, "map_rotations": 3}).gives_maps
    assert dracones.create("differnet", **{**TINY, "map_rotations": 0, "tile": (32, 32)}).gives_maps
