"""Flows that differ in one thing, trained alike, read back alike, and judged by the published order."""

import json

import numpy as np
import pytest
import torch

from dracones.anatomy.inductive_bias import InductiveBias, VariantRun, _chains, inductive_bias
from dracones.anatomy.variants import variants
from dracones.metrics import Estimate
from dracones.training import TrainingConfig

SHORT = TrainingConfig(max_steps=6, batch_size=16, validate_steps=3, device="cpu")
SIZE = {"hidden": 4, "blocks": 1, "couplings": 4, "config": SHORT}


def smooth(count, seed=0):
    """Images [N, 1, 8, 8] of slopes: neighbours are alike."""
    generator = torch.Generator().manual_seed(seed)
    start, step = torch.rand(count, 1, 1, 1, generator=generator), torch.rand(count, 1, 1, 1, generator=generator)
    return ((0.6 * start + 0.05 * step * torch.arange(8)).expand(-1, 1, 8, 8) * 255).round() / 255


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    x = smooth(80)
    others = {"noise": torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(1))}
    options = {"masks": ("checkerboard", "horizontal"), "bottlenecks": (3,), "seeds": 2, "folder": folder, **SIZE}
    return inductive_bias(x[:60], x[60:], others, **options), folder, x, others, options


def test_every_variant_and_seed_is_trained_alike_and_named(found):
    result, folder, *_ = found
    expected = [(name, seed) for seed in (0, 1) for name in ("checkerboard", "horizontal", "l = 3")]
    assert [(run.variant, run.seed) for run in result.runs] == expected
    assert {(run.steps, run.images_seen) for run in result.runs} == {(6, 96)}
    assert {tuple(step for step, _ in run.curve) for run in result.runs} == {(3, 6)}
    # seeds draw other weights and batches
    first, second = result.of("horizontal")
    assert first.curve != second.curve
    assert result.of("l = 3")[0].parameters != first.parameters
    assert len(list(folder.glob("*.checkpoint"))) == 6


def test_numbers_are_those_of_the_trained_densities(found):
    result, _, x, others, _ = found
    for name, density in result.densities.items():
        (run, _) = result.of(name)
        assert run.bits_per_dim["normal"].value == pytest.approx(density.bits_per_dim(x[60:]).mean().item(), rel=1e-4)
        inside, outside = density.log_prob(x[60:]), density.log_prob(others["noise"])
        area = (outside[:, None] < inside).double().mean().item()
        assert run.auroc["noise"].value == pytest.approx(area)
    # the mask is what differs: horizontal couplings read one half and change the other
    changes = next(iter(result.densities["horizontal"].flow.bijection)).get_buffer("changes")
    assert changes[0].any(1).tolist() in ([True] * 4 + [False] * 4, [False] * 4 + [True] * 4)


def test_a_finished_folder_is_read_back_and_nothing_trained_again(found, monkeypatch):
    result, _, x, others, options = found
    monkeypatch.setattr("dracones.training.step.Stepper.make", None)
    again = inductive_bias(x[:60], x[60:], others, **options)
    assert again.runs == result.runs


def test_held_out_images_are_not_trained_on():
    x = smooth(40)
    one = {"masks": ("cycle",), "bottlenecks": (), **SIZE}
    given = inductive_bias(x[:24], x[30:], {"other": 1 - x[30:]}, held_out=x[24:30], **one)
    assert given.runs[0].images_seen == 6 * 16
    with pytest.raises(ValueError, match="train: 19 images are too few to hold out a tenth of"):
        inductive_bias(x[:19], x[30:], {"other": 1 - x[30:]}, **one)


def estimate(value):
    return Estimate(value, value - 0.01, value + 0.01)


def made(values, chains):
    """A finding whose AUROC by variant are those given, two seeds apart by .02."""
    runs = tuple(
        VariantRun(
            name, seed, 10, 5, 50, ((3, 5.0), (6, 4.9)), {"normal": estimate(4.0), "a": estimate(3.0)},
            {"a": estimate(value + (0.01 if seed else -0.01))},
        )
        for seed in (0, 1)
        for name, value in values.items()
    )  # fmt: skip
    return InductiveBias(runs, chains, {name: {"normal": np.zeros(3), "a": np.ones(3)} for name in values}, {})


@pytest.mark.parametrize(
    ("areas", "said"),
    [
        ((0.1, 0.2, 0.3), "it rises at every step: seen."),
        ((0.1, 0.3, 0.2), "it rises from the first to the last, not at every step: seen in part."),
        ((0.1, 0.11, 0.2), "it rises from the first to the last, not at every step: seen in part."),
        ((0.3, 0.2, 0.1), "it does not rise by more than chance: not seen."),
        ((0.2, 0.21, 0.22), "it does not rise by more than chance: not seen."),
    ],
)
def test_the_published_order_is_said_to_be_seen_only_where_it_is(areas, said):
    names = ("checkerboard", "horizontal", "cycle")
    result = made(dict(zip(names, areas, strict=True)), (names,))
    assert result.in_words() == [
        f"AUROC of a: checkerboard {areas[0]:.3f}, horizontal {areas[1]:.3f}, cycle {areas[2]:.3f}; {said}"
    ]


def test_the_table_has_the_test_sets_interval_beside_the_seeds_spread():
    (row,) = made({"cycle": 0.5}, ()).rows()
    assert row["a, AUROC"].low == pytest.approx(0.49)
    assert row["a, seeds ±"] == pytest.approx(0.02 / 2**0.5)
    assert row["last gain"] == pytest.approx(0.1)


def test_bottlenecks_are_compared_from_none_to_narrow():
    assert _chains(("cycle", "checkerboard"), (10, 100)) == (
        ("checkerboard", "cycle"),
        ("checkerboard", "l = 100", "l = 10"),
    )
    assert _chains(("horizontal",), (10,)) == ()
    assert [variant.options for variant in variants(("cycle",), (7,))] == [
        {"masks": "cycle"},
        {"masks": "checkerboard", "bottleneck": 7},
    ]


def test_figures_and_json(found):
    result = found[0]
    result.figure().canvas.draw()
    result.auroc_figure().canvas.draw()
    record = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert len(record["runs"]) == 6
    assert "log_probs" not in record


def test_nothing_to_compare_is_refused():
    x = smooth(30)
    with pytest.raises(ValueError, match="name at least one mask or bottleneck"):
        inductive_bias(x, x, {"a": x}, masks=(), bottlenecks=())
    with pytest.raises(ValueError, match="seeds: expected at least 1, got 0"):
        inductive_bias(x, x, {"a": x}, seeds=0)
    with pytest.raises(ValueError, match="masks must be multiscale, checkerboard, horizontal or cycle, got 'spiral'"):
        inductive_bias(x, x, {"a": x}, masks=("spiral",), **SIZE)
