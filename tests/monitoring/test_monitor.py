"""A monitor keeps its bound, finds changes, and is the same after it was saved."""

import itertools
import json
import math
from array import array

import numpy as np
import pytest

from dracones.monitoring import KINDS, Monitor, Wager, bets
from dracones.monitoring.ranking import Ranking
from dracones.monitoring.wager import VARIATIONS


def fed(monitor, scores, source=""):
    """At which score the whole raised its alarm, from 1; None: never."""
    for score in scores:
        monitor.update(score, source)
    return monitor.state()["alarm_at"]


@pytest.fixture(scope="module")
def normal():
    return np.random.default_rng(0).normal(size=300)


def test_every_bet_is_fair_and_of_the_variation_that_is_said():
    grid = np.linspace(0, 1, 100_001)
    paid = bets(grid)
    assert paid.shape[-1] == len(KINDS) == len(VARIATIONS)
    assert (paid > 0).all()  # no p-value takes everything
    np.testing.assert_allclose(np.trapezoid(paid, grid, axis=0), 1, atol=1e-4)
    np.testing.assert_allclose(np.abs(np.diff(paid, axis=0)).sum(axis=0), VARIATIONS, atol=1e-3)


def test_capital_is_that_of_every_path_of_jumps():
    """Against the sum over all sequences of bets, by their probability under the jumper's chain."""
    from dracones.monitoring.wager import JUMPS

    p_values = [0.03, 0.6, 0.2]
    paid = bets(p_values)
    expected, few = 0.0, len(KINDS)
    for jump in JUMPS:
        for path in itertools.product(range(few), repeat=3):
            probability = 1 / few
            for before, after in itertools.pairwise(path):
                probability *= jump / few + (1 - jump) * (before == after)
            expected += probability * math.prod(paid[i, bet] for i, bet in enumerate(path)) / len(JUMPS)
    wager = Wager()
    for p in p_values:
        wager.update(p)
    assert float(wager.log_capital) == pytest.approx(math.log(expected), abs=1e-12)


def test_online_p_values_are_places_in_the_growing_set():
    random = np.random.default_rng(1)
    calibration, scores = random.integers(0, 6, 20), random.integers(0, 6, 40)
    ranking = Ranking(array("d", sorted(calibration.tolist())), keep=100, risk=0.001)
    for i, score in enumerate(scores):
        before = np.concatenate([calibration, scores[:i]])
        coin = float(1 - random.random())
        found = ranking.place(float(score), coin)
        expected = ((before > score).sum() + coin * (1 + (before == score).sum())) / (len(before) + 1)
        assert found == (pytest.approx(expected), 0.0)


def test_online_p_values_are_uniform_and_independent_under_ties():
    random = np.random.default_rng(2)
    pairs = []
    for _ in range(3000):
        scores = random.integers(0, 3, 5)
        ranking = Ranking(array("d", sorted(scores[:3].tolist())), keep=9, risk=0.001)
        pairs.append([ranking.place(float(score), float(1 - random.random())).p_value for score in scores[3:]])
    cells = np.histogram2d(*np.array(pairs).T, bins=4, range=[[0, 1], [0, 1]])[0]
    assert ((cells - 3000 / 16) ** 2 / (3000 / 16)).sum() < 37.7  # chi-square, 15 degrees of freedom, .1 %


def test_a_set_that_no_longer_grows_costs_what_the_band_says():
    ranking = Ranking(array("d", [0.0] * 100), keep=0, risk=0.001)
    assert ranking.place(1.0, 0.5).slack == pytest.approx(math.sqrt(math.log(2000) / 200) + 1 / 101)
    assert len(ranking.seen) == 0
    with_slack, without = Wager(), Wager()
    for _ in range(50):
        with_slack.update(0.01, 0.05)
        without.update(0.01, 0.0)
    assert float(with_slack.log_capital) < float(without.log_capital) - 50 * 0.05


def test_no_capital_is_made_of_uniform_p_values():
    """Fair: over many streams the mean capital is 1, and the share that ever reaches 10 is within a tenth."""
    random = np.random.default_rng(3)
    wager, reached = Wager((4000,)), np.zeros(4000, dtype=bool)
    for _ in range(60):
        wager.update(random.random(4000))
        reached |= wager.log_capital >= math.log(10)
    capital = np.exp(wager.log_capital)
    assert abs(capital.mean() - 1) < 4 * capital.std() / math.sqrt(4000)
    assert 0.005 < reached.mean() <= 0.1


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda scores: scores + 1, "higher"),
        (lambda scores: scores - 1, "lower"),
        (lambda scores: 1.3 * np.sign(scores), "wider"),
        (lambda scores: scores * 0.2, "narrower"),
        (lambda scores: np.where(np.arange(len(scores)) % 5, scores, 5), "alarms"),
    ],
)
def test_a_change_is_found_and_named(normal, change, kind):
    monitor = Monitor(normal)
    new = np.random.default_rng(11).normal(size=500)
    at = fed(monitor, np.concatenate([new[:200], change(new[200:])]))
    state = monitor.state()
    assert at is not None
    assert 200 < at < 350
    assert 150 <= state["since"] <= 215
    assert state["change"] == kind


def test_images_like_the_calibration_raise_nothing(normal):
    assert fed(Monitor(normal), np.random.default_rng(5).normal(size=1500)) is None


def test_without_calibration_images_are_compared_with_those_before():
    random = np.random.default_rng(6)
    assert fed(Monitor(), random.normal(size=400)) is None
    assert fed(Monitor(), np.concatenate([random.normal(size=300), random.normal(1, 1, size=100)])) > 300


def test_each_source_has_its_own_stream(normal):
    monitor, random = Monitor(normal), np.random.default_rng(7)
    for _ in range(150):
        monitor.update(random.normal(), "still")
        monitor.update(random.normal(1.5), "moved")
    state = monitor.state()
    assert monitor.sources == ("still", "moved")
    assert state["seen"] == 300
    assert [state["sources"][name]["alarm"] for name in monitor.sources] == [False, True]
    assert monitor.alarm


def test_update_says_when_an_alarm_is_new(normal):
    monitor = Monitor(normal)
    said = [monitor.update(5.0) for _ in range(60)]
    assert said.index(True) + 1 == monitor.state()["alarm_at"]
    assert sum(said) == 1


def test_a_mapping_gives_each_source_its_own_calibration(normal):
    """Two products whose scores differ by far: each is like its own calibration, so nothing has changed."""
    monitor, random = Monitor({"a": normal, "b": normal + 10}), np.random.default_rng(8)
    for _ in range(300):
        monitor.update(random.normal(), "a")
        monitor.update(random.normal(10), "b")
    assert not monitor.alarm
    assert monitor.state()["seen"] == 600
    for _ in range(60):
        monitor.update(10.0, "a")
    assert monitor.state()["sources"]["a"]["alarm"]
    assert monitor.state()["alarm"]
    assert not monitor.state()["sources"]["b"]["alarm"]
    with pytest.raises(ValueError, match=r"source 'c' has no calibration scores; known: 'a', 'b'"):
        monitor.update(0.0, "c")
    with pytest.raises(ValueError, match="source '' has no calibration scores"):
        monitor.update(0.0)


@pytest.mark.parametrize("own", [False, True])
def test_a_saved_monitor_goes_on_as_if_it_had_not_stopped(normal, tmp_path, own):
    scores = np.random.default_rng(9).normal(0.3, 1, size=120)
    given = {"a": normal, "b": normal + 1} if own else normal
    whole, first = (Monitor(given, seed=3, keep=50, false_alarm_rate=0.05) for _ in range(2))
    for i, score in enumerate(scores):
        whole.update(score, "ab"[i % 2])
        if i < 80:
            first.update(score, "ab"[i % 2])
    second = Monitor.restore(first.save(tmp_path / "monitor.json"))
    for i, score in enumerate(scores[80:]):
        second.update(score, "ab"[i % 2])
    assert second.state() == whole.state()
    json.dumps(whole.state(), allow_nan=False)


def test_the_curve_is_the_last_500_values(normal):
    monitor = Monitor(normal)
    values = []
    for score in np.random.default_rng(10).normal(size=520):
        monitor.update(score)
        values.append(monitor.state()["log_martingale"])
    assert monitor.state()["curve"] == values[20:]


def test_reset_begins_anew(normal):
    monitor = Monitor(normal)
    for _ in range(60):
        monitor.update(5.0, "a")
        monitor.update(0.0, "b")
    monitor.reset("a")
    assert monitor.state()["sources"]["a"]["seen"] == 0
    assert monitor.state()["alarm"]
    monitor.reset()
    assert monitor.state() == Monitor(normal).state()
    with pytest.raises(ValueError, match="source 'c' is unknown; known: none"):
        monitor.reset("c")


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_without_a_place_is_refused_and_not_counted(normal, score):
    monitor = Monitor(normal)
    with pytest.raises(ValueError, match="expected a finite number"):
        monitor.update(score, "a")
    assert monitor.state() == Monitor(normal).state()


def test_what_a_monitor_refuses(normal, tmp_path):
    with pytest.raises(ValueError, match="strictly between 0 and 1, got 1"):
        Monitor(normal, false_alarm_rate=1)
    with pytest.raises(ValueError, match="1 of 2 are NaN"):
        Monitor([0.0, float("nan")])
    with pytest.raises(ValueError, match=r"not finite.*of source 'b'"):
        Monitor({"a": [0.0], "b": [float("inf")]})
    monitor = Monitor(normal, most_sources=1)
    monitor.update(0.0, "a")
    with pytest.raises(ValueError, match="'b' would be one more than 1"):
        monitor.update(0.0, "b")
    path = monitor.save(tmp_path / "monitor.json")
    content = json.loads(path.read_text())
    content["whole"]["wager"]["shares"] = [1]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"monitor\.json is no file of a monitor, or a damaged one: shares"):
        Monitor.restore(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="no file of a monitor"):
        Monitor.restore(path)


def test_the_alarm_comes_where_the_capital_first_reaches_what_the_rate_asks_for(normal):
    monitor, values = Monitor(normal, false_alarm_rate=0.02), []
    for score in np.random.default_rng(12).normal(1, 1, size=80):
        monitor.update(score)
        values.append(monitor.state()["log_martingale"])
    state = monitor.state()
    assert state["threshold"] == pytest.approx(-math.log(0.02 * 0.9))
    assert state["alarm_at"] == 1 + next(i for i, value in enumerate(values) if value >= state["threshold"])
    assert state["highest"] == max(values)
