"""The words follow from the numbers."""

import numpy as np
import pytest

from dracones.anatomy.decomposition import Decomposition
from dracones.anatomy.repairs import Repairs
from dracones.anatomy.verdict import judge, kind_of
from dracones.metrics import Estimate


def near(value, half=0.01):
    return Estimate(value, max(0, value - half), min(1, value + half))


def decomposition(shift_latent, shift_volume, count=200, name="digits"):
    rng = np.random.default_rng(0)
    normal = {"log_prob_latent": rng.normal(size=count), "log_det": rng.normal(size=count)}
    other = {
        "log_prob_latent": rng.normal(size=count) + shift_latent,
        "log_det": rng.normal(size=count) + shift_volume,
    }
    values = {
        key: {"log_prob": each["log_prob_latent"] + each["log_det"], **each}
        for key, each in (("normal", normal), (name, other))
    }
    return Decomposition.of_values(values, "log_prob", ("log_prob_latent", "log_det"), 10)


def table(name="digits", count=200, **rules):
    return Repairs({rule: {name: found} for rule, found in rules.items()}, 100, {"normal": count, name: count}, {})


def test_an_inverted_likelihood_is_named_with_its_term_and_its_repair():
    verdict = judge(decomposition(-1, 8), table(likelihood=near(0.01), auto=near(0.99)))
    assert verdict.level == "bad"
    assert verdict.text.startswith("This likelihood prefers digits to its own normal images: AUROC 0.0")
    assert "the volume term log|det| does it; use the rule “auto”: 0.99." in verdict.text
    other = judge(decomposition(8, -1), table(likelihood=near(0.01), auto=near(0.99)))
    assert "the latent term log p(z) does it" in other.text


@pytest.mark.parametrize(
    ("shift", "level", "words"),
    [
        (-8, "good", "On these sets this likelihood can be trusted: AUROC 1.00 for digits"),
        (0, "warning", "cannot tell digits from its own normal images"),
        (-1, "warning", "only in part"),
    ],
)
def test_other_outcomes_have_their_own_words(shift, level, words):
    verdict = judge(decomposition(shift, shift / 4), table(likelihood=near(0.5), auto=near(0.95)))
    assert verdict.level == level
    assert words in verdict.text


def test_advice_says_when_nothing_helps_and_when_a_choice_was_made_by_looking():
    inverted = decomposition(-1, 8)
    none = judge(inverted, table(likelihood=near(0.01), auto=near(0.49), dose=near(0.6)))
    assert "no rule on its statistics repairs it (“auto” 0.49, best “dose” 0.60)" in none.text
    chosen = judge(inverted, table(likelihood=near(0.01), auto=near(0.7), dose=near(0.97)))
    assert "“dose” 0.97, but chosen by looking at this set" in chosen.text
    part = judge(inverted, table(likelihood=near(0.01), auto=near(0.8), dose=near(0.82)))
    assert "“auto” repairs it in part: 0.80" in part.text


def test_small_sets_are_called_small():
    verdict = judge(decomposition(-1, 8, count=30), table(count=30, likelihood=near(0.01), auto=near(0.99)))
    assert any("Small sets (normal 30 and digits 30 images)" in point for point in verdict.points)
    large = judge(decomposition(-1, 8), table(likelihood=near(0.01), auto=near(0.99)))
    assert not any("Small sets" in point for point in large.points)


def test_kinds_need_their_interval():
    assert kind_of(Estimate(0.3, 0.1, 0.6)) == "blind"
    assert kind_of(Estimate(0.3, 0.2, 0.4)) == "inverted"
    assert kind_of(Estimate(0.89, 0.8, 0.95)) == "weak"
    assert kind_of(Estimate(0.93, 0.8, 0.97)) == "right"
