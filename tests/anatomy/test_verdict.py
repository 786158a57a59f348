"""The words follow from the numbers."""

from dataclasses import replace

import numpy as np
import pytest

from dracones.anatomy.decomposition import Decomposition
from dracones.anatomy.repairs import Repairs
from dracones.anatomy.verdict import judge, kind_of
from dracones.methods.learnt import Learnt
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


def table(name="digits", count=200, saved=None, **rules):
    found = {rule: {name: area} for rule, area in rules.items()}
    return Repairs(found, 100, {"normal": count, name: count}, {}, saved, None if saved is None else 1234)


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


def test_a_density_that_has_learnt_nothing_is_not_judged():
    good = decomposition(-8, -2)
    rules = table(likelihood=near(0.99), auto=near(0.99))
    assert judge(good, rules, state=Learnt(4.0, "webp", 4.6, 0.0)).level == "good"
    untrained = judge(good, rules, state=Learnt(8.08, "webp", 4.59, 0.9, 0.031))
    assert untrained.level == "bad"
    assert untrained.text.startswith("Not trained: judge nothing.")
    assert "it needs 8.08 bits per dimension" in untrained.text
    assert "lossless WebP 4.59" in untrained.text
    assert any("log p(z) is +0.90 nats per dimension" in point for point in untrained.points)
    assert any("still gained 3.1 % of its bits" in point for point in untrained.points)


def test_the_saved_rule_is_judged_and_a_better_one_named():
    saved = "this model, as saved (dose)"
    rules = table(saved=saved, likelihood=near(0.01), auto=near(0.99), **{saved: near(0.7)})
    verdict = judge(decomposition(-1, 8), rules)
    assert f"“{saved}” reaches 0.70, “auto” 0.99, but chosen by looking at this set" in verdict.text
    assert any("fitted on 1,234 normal images of its own fit" in point for point in verdict.points)
    assert any(f"On digits “auto” is better than “{saved}”: 0.99" in point for point in verdict.points)
    close = judge(
        decomposition(-1, 8), table(saved=saved, likelihood=near(0.01), auto=near(0.71), **{saved: near(0.7)})
    )
    assert not any("is better than" in point for point in close.points)
    assert "repairs it in part: 0.70" in close.text


def test_the_witness_that_speaks_loudest_is_named_where_there_are_several():
    found = decomposition(-1, 8)
    rules = table(likelihood=near(0.01), auto=near(0.99))
    heard = replace(rules, loudest={"digits": "layout, given its statistics"})
    assert any(
        "by its witness “layout, given its statistics” above all" in point for point in judge(found, heard).points
    )
    assert not any("witness" in point for point in judge(found, rules).points)
