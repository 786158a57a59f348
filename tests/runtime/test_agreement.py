"""What counts as the same answer."""

import numpy as np
import pytest

from dracones.runtime.agreement import disagreement
from dracones.runtime.container import PLACEHOLDER, Checks, is_whole, seal

CALIBRATION = np.array([1.0, 2.0, 3.0], dtype=np.float32)


def answer(score, p_value, is_anomaly=False):
    return {"score": np.array([score]), "p_value": np.array([p_value]), "is_anomaly": np.array([is_anomaly])}


def test_equal_answers_agree_and_a_score_off_is_named():
    assert disagreement(answer(2.5, 0.5), answer(2.5, 0.5), CALIBRATION) == (0.0, None)
    off, words = disagreement(answer(2.501, 0.5), answer(2.5, 0.5), CALIBRATION)
    assert off == pytest.approx(4e-4, rel=1e-2)
    assert "score of image 0" in words
    assert disagreement(answer(np.nan, 0.5), answer(2.5, 0.5), CALIBRATION)[1] is not None


def test_p_values_may_differ_by_ties_alone():
    tied = disagreement(answer(2.000001, 0.5), answer(2.0, 0.75), CALIBRATION)
    assert tied[1] is None
    assert "p = " in (disagreement(answer(2.5, 0.75), answer(2.5, 0.5), CALIBRATION)[1] or "")


def test_verdicts_and_maps_count():
    assert "verdict" in (disagreement(answer(2.5, 0.5, True), answer(2.5, 0.5), CALIBRATION)[1] or "")
    maps = [{**answer(2.5, 0.5), "map": np.full((1, 2, 2), value)} for value in (1.0, 1.001)]
    assert "heat map" in (disagreement(*maps, CALIBRATION)[1] or "")
    assert "outputs" in (disagreement(answer(2.5, 0.5), maps[0], CALIBRATION)[1] or "")
    nowhere = {**answer(2.5, 0.5), "map": np.full((1, 2, 2), np.nan)}
    assert disagreement(nowhere, nowhere, CALIBRATION)[1] is None
    assert disagreement(nowhere, maps[0], CALIBRATION)[1] is not None


def test_a_seal_breaks_with_any_byte():
    sealed = seal(b"a graph, " + PLACEHOLDER.encode() + b" and its weights")
    assert is_whole(sealed)
    for place in range(0, len(sealed), 7):
        assert not is_whole(sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :])
    with pytest.raises(ValueError, match="placeholder once"):
        seal(b"nothing")


def test_checks_survive_their_text():
    checks = Checks(np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2), {"score": np.array([0.1], np.float32)}, 3)
    again = Checks.from_text(checks.to_text())
    assert again.stride == 3
    np.testing.assert_array_equal(again.images, checks.images)
    np.testing.assert_array_equal(again.outputs["score"], checks.outputs["score"])


def test_a_score_near_zero_is_held_to_the_scale_of_its_map():
    maps = np.array([[[-1.0, 0.001]]])
    found, expected = ({"score": np.array([score]), "map": maps} for score in (0.001001, 0.001))
    assert disagreement(found, expected, CALIBRATION[:0]) == (pytest.approx(1e-6, rel=1e-2), None)
    assert disagreement({"score": found["score"]}, {"score": expected["score"]}, CALIBRATION[:0])[1] is not None


def test_a_p_value_that_is_no_number_agrees_with_nothing():
    assert "p = nan" in (disagreement(answer(2.5, np.nan), answer(2.5, 0.5), CALIBRATION)[1] or "")


def test_an_infinite_value_of_a_map_hides_no_other_difference():
    maps = np.array([[[np.inf, 1.0]]], dtype=np.float32)
    said = [{"score": np.array([score], np.float32), "map": maps} for score in (1.0, 100.0)]
    assert disagreement(said[0], said[0], CALIBRATION[:0]) == (0.0, None)
    assert "score of image 0" in (disagreement(said[1], said[0], CALIBRATION[:0])[1] or "")
    for other in ([[[np.inf, 2.0]]], [[[-np.inf, 1.0]]], [[[np.nan, 1.0]]], [[[3e38, 1.0]]]):
        found = {**said[0], "map": np.array(other, np.float32)}
        assert "heat map" in (disagreement(found, said[0], CALIBRATION[:0])[1] or "")


@pytest.mark.parametrize("name", ["score", "p_value", "is_anomaly", "map"])
def test_one_answer_for_all_images_is_not_as_many(name):
    whole = {key: np.repeat(value, 2) for key, value in answer(2.5, 0.5).items()} | {"map": np.ones((2, 2, 2))}
    found = {**whole, name: whole[name][:1]}
    assert f"{name} has shape (1," in (disagreement(found, whole, CALIBRATION)[1] or "")


def test_a_verdict_that_differs_is_told_whatever_the_tolerance():
    for tolerance in (1e-5, 1e-2):
        near = disagreement(answer(2.000001, 0.5, True), answer(2.0, 0.5, False), CALIBRATION, tolerance)
        assert near[1] == "a verdict differs"


def test_maps_may_have_a_tolerance_of_their_own():
    said = [{**answer(2.5, 0.5), "map": np.array([[[value, 10.0]]])} for value in (1.0, 1.5)]
    assert "heat map" in (disagreement(*said, CALIBRATION)[1] or "")
    assert disagreement(*said, CALIBRATION, map_tolerance=0.06) == (pytest.approx(0.05), None)
    assert "heat map" in (disagreement(*said, CALIBRATION, map_tolerance=0.04)[1] or "")
