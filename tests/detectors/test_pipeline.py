"""The pipeline is all there is between a decoded image and its answer; the detector adds checks and no arithmetic."""

import numpy as np
import pytest
import torch

import dracones
from dracones.calibration import Conformal
from dracones.detectors.judge import Judge
from dracones.images import Preprocess, open_images
from feature_case import SMALL, anomalies, normals


@pytest.fixture(scope="module")
def fitted():
    detector = dracones.create("padim", **SMALL, dimensions=30, calibration_share=0.4, false_alarm_rate=0.1)
    return detector.fit(normals(60))


def test_forward_is_predict(fitted):
    images, _ = anomalies(4)
    eight_bit = (images * 255).round().to(torch.uint8)
    with torch.no_grad():
        answer = fitted.pipeline(eight_bit)
    prediction = fitted.predict(eight_bit.float() / 255)
    np.testing.assert_array_equal(answer.score.numpy(), prediction.scores)
    np.testing.assert_array_equal(answer.p_value.numpy(), prediction.p_values)
    np.testing.assert_array_equal(answer.is_anomaly.numpy(), prediction.is_anomaly)
    np.testing.assert_array_equal(answer.map.numpy(), np.stack(prediction.maps))


def test_maps_lie_over_the_image_whatever_the_treatment():
    detector = dracones.create("padim", **{**SMALL, "crop": (48, 48)}, dimensions=30).fit(normals(40, side=96))
    (found,) = detector.predict(normals(1, side=96)).maps
    assert found.shape == (96, 96)
    seen = np.isfinite(found)
    assert seen[40:56, 40:56].all(), "the middle was looked at"
    assert not seen[:8].any(), "what the crop cut off was not"


def test_the_judge_is_conformal():
    generator = np.random.default_rng(0)
    calibration = Conformal().fit(generator.normal(size=99).round(1).astype(np.float32))
    threshold = calibration.threshold(0.05)
    scores = generator.normal(size=500).round(1).astype(np.float32)
    p_values, alarms = Judge(calibration, threshold)(torch.from_numpy(scores))
    np.testing.assert_array_equal(p_values, calibration.p_values(scores))
    np.testing.assert_array_equal(alarms, calibration.is_anomalous(scores, 0.05))
    assert Judge(Conformal(), None)(torch.zeros(2)) == (None, None)


def test_a_treatment_that_images_bring_is_kept_or_refused_never_dropped(tmp_path):
    images = normals(40, side=96)
    opened = open_images(images, preprocess=Preprocess(size=(64, 64), interpolation="nearest"))
    options = {key: value for key, value in SMALL.items() if key != "size"}
    detector = dracones.create("padim", **options, dimensions=30).fit(opened)
    assert (detector.preprocess.size, detector.preprocess.interpolation) == ((64, 64), "nearest")
    with pytest.raises(ValueError, match=r"opened with size=\(64, 64\), and padim was asked for size=\(32, 32\)"):
        dracones.create("padim", **{**SMALL, "size": (32, 32)}, dimensions=30).fit(opened)
    with pytest.raises(ValueError, match=r"was opened with .* but this detector treats images by"):
        detector.predict(open_images(images, preprocess=Preprocess(size=(32, 32))))


def test_tiled_view_shares_weights_and_nothing_else(fitted):
    before = fitted.record
    view = fitted.tiled((64, 64))
    assert view.method is fitted.method
    assert view.pipeline is not fitted.pipeline
    view.calibrate(normals(20), false_alarm_rate=0.2)
    assert fitted.record is before
    assert fitted.config.tile is None
    assert len(fitted.pipeline.judge.scores) == len(before.calibration)
