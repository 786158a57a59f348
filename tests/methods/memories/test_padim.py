"""PaDiM against SciPy's Mahalanobis distance."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis

import dracones
from feature_case import SMALL, anomalies, normals

OPTIONS = {**SMALL, "dimensions": 12, "calibration_share": 0, "validation_share": 0, "blur_sigma": 0}


def test_heat_is_scipys_mahalanobis_distance_at_each_position():
    images = normals(20)
    detector = dracones.create("padim", **OPTIONS).fit(images)
    vectors = detector.method.vectors(detector.method.extractor(images)).double().numpy()  # [P, N, d]
    query = detector.method.extractor(anomalies(1)[0])
    at = detector.method.vectors(query).double().numpy()[:, 0]
    covariances = [np.cov(position.T) for position in vectors]
    ridge = 0.01 * np.mean([np.diag(c).mean() for c in covariances])
    with torch.no_grad():
        got = detector.method.heat(query, (16, 16))[0].flatten().numpy()
    for place in (0, 17, 100, 255):
        inverse = np.linalg.inv(covariances[place] + ridge * np.eye(12))
        expected = mahalanobis(at[place], vectors[place].mean(0), inverse)
        assert got[place] == pytest.approx(expected, rel=1e-3)


def test_scaling_features_changes_nothing():
    images, _ = anomalies(3)
    detector = dracones.create("padim", **OPTIONS).fit(normals(20))
    before = detector.predict(images).scores
    scaled = dracones.create("padim", **OPTIONS)
    plain = type(detector.method).vectors
    scaled.method.vectors = lambda maps: plain(scaled.method, maps) * 100  # type: ignore[method-assign]
    np.testing.assert_allclose(scaled.fit(normals(20)).predict(images).scores, before, rtol=1e-3)


def test_fit_score_save(tmp_path):
    detector = dracones.create("padim", **SMALL, dimensions=30).fit(normals(40))
    images, mask = anomalies()
    loud, calm = detector.predict(images), detector.predict(normals(8, seed=9))
    assert loud.scores.min() > calm.scores.max()
    heat = np.stack(loud.maps)
    assert heat[:, mask].mean() > heat[:, ~mask].mean()
    again = dracones.load(detector.save(tmp_path / "m.safetensors"))
    np.testing.assert_array_equal(again.predict(images).scores, loud.scores)
    with pytest.raises(ValueError, match="positions of a 16x16 map, and these images give 24x24"):
        detector.score(normals(1, side=96))


def test_constant_images_are_no_singular_matrix():
    detector = dracones.create("padim", **OPTIONS).fit(torch.full((12, 3, 64, 64), 0.5))
    assert np.isfinite(detector.predict(anomalies(2)[0]).scores).all()


def test_distances_keep_their_digits_where_the_backbone_runs_in_bfloat16():
    method = dracones.create("padim", **OPTIONS).fit(normals(20)).method
    with torch.no_grad():
        maps = method.extractor(anomalies(3)[0])
        exact = method.heat(maps, (64, 64))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(method.heat(maps, (64, 64)), exact)
