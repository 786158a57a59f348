import re
import sys
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from dracones.metrics import auroc
from dracones.report import (
    p_value_histogram,
    pr_curves,
    roc_curves,
    scatter,
    score_histogram,
    training_curve,
)

RNG = np.random.default_rng(0)
NORMAL, ODD = RNG.normal(0, 1, 500), RNG.normal(2, 1, 300)
SCORES, LABELS = np.r_[NORMAL, ODD], np.r_[np.zeros(500), np.ones(300)]
HISTORY = [{"step": 10 * k, "train_loss": 1 / k, "validation_loss": None if k == 2 else 2 / k} for k in range(1, 6)]

DRAWINGS = {
    "score_histogram": lambda: score_histogram({"normal": NORMAL, "odd": ODD}, threshold=1.5),
    "roc_curves": lambda: roc_curves({"a rule": (SCORES, LABELS)}),
    "pr_curves": lambda: pr_curves({"a rule": (SCORES, LABELS)}),
    "training_curve": lambda: training_curve(HISTORY, best_step=50),
    "p_value_histogram": lambda: p_value_histogram({"normal": RNG.uniform(size=99)}, false_alarm_rate=0.01),
    "scatter": lambda: scatter({"a": (NORMAL, NORMAL)}, xlabel="size", ylabel="log-likelihood"),
}


def words(picture):
    tree = ElementTree.fromstring(picture.data.decode())
    return ["".join(element.itertext()) for element in tree.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", DRAWINGS)
def test_each_is_small_well_formed_svg_with_words_and_day_and_night(name):
    drawn = DRAWINGS[name]()
    assert drawn.media_type == "image/svg+xml"
    assert len(drawn.data) < 60_000
    root = ElementTree.fromstring(drawn.data.decode())
    assert root.tag.endswith("svg")
    assert b"prefers-color-scheme: dark" in drawn.data
    assert drawn.alt
    assert words(drawn)
    # Nothing is fetched: the only addresses are names of vocabularies.
    addresses = set(re.findall(rb'https?://[^"<> ]+', drawn.data)) - {b"http://www.w3.org/2000/svg"}
    assert all(b"w3.org" in address or b"purl.org" in address or b"creativecommons" in address for address in addresses)


@pytest.mark.parametrize("name", DRAWINGS)
def test_drawing_leaves_matplotlib_as_found_and_never_opens_pyplot(name):
    before = dict(mpl.rcParams)
    first = DRAWINGS[name]()
    assert dict(mpl.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or mpl.pyplot.get_fignums() == []
    if name != "p_value_histogram":
        assert DRAWINGS[name]().data == first.data


def test_histogram_counts_every_image_once_per_group():
    drawn = score_histogram({"normal": np.r_[NORMAL, 1e6], "odd": ODD})
    groups = drawn.numbers["groups"]
    assert groups["normal"]["count"] == 501
    for group in groups.values():
        assert group["share"].sum() == pytest.approx(1)
    edges = drawn.numbers["edges"]
    assert edges[-1] < 10
    inside = (edges[0] <= NORMAL) & (edges[3] > NORMAL)
    below = edges[0] > NORMAL
    assert groups["normal"]["share"][:3].sum() == pytest.approx((inside.sum() + below.sum()) / 501)
    assert "normal (501)" in words(drawn)


def test_constant_scores_and_one_image_can_be_drawn():
    assert score_histogram({"a": [3.0] * 5}).numbers["groups"]["a"]["share"].sum() == 1
    assert score_histogram({"a": [3.0], "b": []}).numbers["groups"]["b"]["count"] == 0


def test_what_cannot_be_drawn_is_refused_by_name():
    with pytest.raises(ValueError, match="'odd' holds 2 non-finite of 3 values"):
        score_histogram({"normal": [1.0], "odd": [np.nan, np.inf, 1.0]})
    with pytest.raises(ValueError, match="every group is empty"):
        score_histogram({"normal": []})
    with pytest.raises(ValueError, match=r"p-values lie in \[0, 1\]; 'a' holds 0.5 to 1.5"):
        p_value_histogram({"a": [0.5, 1.5]})


def test_roc_shows_the_exact_area_and_few_points():
    drawn = roc_curves({"rule": (SCORES, LABELS)})
    numbers = drawn.numbers["rule"]
    assert numbers["auroc"] == auroc(SCORES, LABELS)
    assert len(numbers["false_positive_rate"]) <= 300
    assert f"rule: {numbers['auroc']:.3f}" in words(drawn)


def test_precision_recall_area_is_average_precision():
    from sklearn.metrics import average_precision_score

    numbers = pr_curves({"rule": (SCORES, LABELS)}).numbers["rule"]
    assert numbers["aupr"] == pytest.approx(average_precision_score(LABELS, SCORES), abs=1e-12)
    assert numbers["share_of_anomalies"] == 300 / 800


def test_training_curve_takes_readings_and_leaves_out_gaps():
    from dracones.training import Reading

    readings = [Reading(epoch=0, seconds=0.0, learning_rate=0.1, **entry) for entry in HISTORY]
    drawn = training_curve(readings)
    assert drawn.numbers["validation_loss"]["step"] == (10, 30, 40, 50)
    assert drawn.numbers == training_curve(HISTORY).numbers
    assert b"held out" not in training_curve([{"step": 1, "train_loss": 2.0}]).data


def test_scatter_draws_few_of_many_the_same_each_time():
    x = np.arange(5000.0)
    drawn = [scatter({"a": (x, -x)}, xlabel="x", ylabel="y", most=100).numbers["a"] for _ in range(2)]
    assert len(drawn[0]["x"]) == 100
    assert np.array_equal(drawn[0]["x"], drawn[1]["x"])
    assert np.array_equal(drawn[0]["y"], -drawn[0]["x"])


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "_private", "$x^2$ & co", "日本 ümlaut"])
def test_names_are_shown_as_they_are(name):
    drawn = score_histogram({name: [1.0, 2.0]})
    assert f"{name} (2)" in [text.lstrip("\u200b") for text in words(drawn)]
    assert b"<script>" not in drawn.data


def test_only_coordinates_are_shortened_not_words():
    drawn = score_histogram({"0.123456 and 1.98765": [1.0, 2.0]})
    assert "0.123456 and 1.98765 (2)" in words(drawn)
    assert not re.search(rb' d="[^"]*\d\.\d{3}', drawn.data)


@pytest.mark.parametrize("length", [3, 12, 24, 40])
def test_no_name_in_the_legend_leaves_the_picture(length):
    names = [f"{k}".ljust(length, "x") for k in range(5)]
    drawn = scatter({name: ([0.0, 1.0], [0.0, 1.0]) for name in names}, xlabel="x", ylabel="y")
    root = ElementTree.fromstring(drawn.data.decode())
    width = float(root.get("viewBox").split()[2])
    for element in root.iter("{http://www.w3.org/2000/svg}text"):
        word = "".join(element.itertext())
        if word in names:
            left = float(element.get("x") or re.search(r"translate\(([\d.]+)", element.get("transform")).group(1))
            # 6 pixels, 4.5 points, a letter.
            assert left + 4.5 * length <= width
