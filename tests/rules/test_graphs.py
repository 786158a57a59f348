"""Rules as graphs: what is exported is what `score` computes, and no method of counting changed a number."""

import pytest
import torch

from dracones.rules import DoSE, EmpiricalTail, create, level_statistics
from dracones.rules.tails import count_below


def normal(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    log_prob, complexity = torch.randn(2, count, generator=generator).double()
    return {"log_prob": log_prob, "log_det": complexity, "complexity_png": 100 + complexity + log_prob}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("auto", {"statistics": ["log_prob", "log_det", "complexity_png"]}),
        ("joint", {"statistics": ["log_prob", "log_det"]}),
        ("surprise", {"given": ["complexity_png"]}),
        ("dose", {"statistics": ["log_prob", "log_det"]}),
        ("dose", {"statistics": ["log_prob", "log_det"], "method": "svm"}),
        ("typicality", {}),
        ("volume", {"sides": "two"}),
    ],
)
def test_a_graph_with_a_free_batch_is_the_rule(name, options):
    rule = create(name, **options)
    rule.fit(normal(200))
    free = {key: {0: torch.export.Dim("b")} for key in rule.requires}
    example = {key: normal(5, seed=1)[key] for key in rule.requires}
    graph = torch.export.export(rule, (example,), dynamic_shapes=(free,), strict=False).module()
    for count in (1, 9):
        statistics = {key: 3 * normal(count, seed=2)[key] for key in rule.requires}
        torch.testing.assert_close(graph(statistics), rule.score(statistics), rtol=1e-9, atol=1e-9)


def test_counting_by_bisection_is_searchsorted():
    generator = torch.Generator().manual_seed(0)
    for count in (1, 2, 3, 64, 100):
        ordered = torch.randint(0, 20, (count,), generator=generator).sort().values.double()
        values = torch.cat([ordered, torch.arange(-2.0, 23.0, 0.5).double()])
        assert torch.equal(count_below(ordered, values), torch.searchsorted(ordered, values))


def test_tails_of_tied_samples_stay_monotone_and_finite():
    tail = EmpiricalTail()
    tail.fit({"value": torch.tensor([1.0, 1.0, 1.0, 2.0, 2.0]).double()})
    log_p = tail.log_p(torch.tensor([0.0, 1.0, 1.5, 2.0, 2.5]).double())
    assert torch.isfinite(log_p).all()
    assert (log_p.diff() <= 0).all()


def test_many_rows_are_scored_in_pieces_to_the_same_numbers():
    rule = DoSE(statistics=["log_prob", "log_det"])
    rule.fit(normal(300))
    many = normal(2500, seed=3)
    few = {name: values[2000:2010] for name, values in many.items()}
    torch.testing.assert_close(rule.score(many)[2000:2010], rule.score(few), rtol=1e-12, atol=1e-12)


def test_the_entropy_of_levels_is_that_of_their_counts():
    images = torch.randint(0, 256, (3, 1, 9, 7), generator=torch.Generator().manual_seed(0)) / 255
    for image, found in zip(images, level_statistics(images)["level_entropy"], strict=True):
        counts = torch.bincount((image * 255).round().long().flatten(), minlength=256).double()
        shares = counts[counts > 0] / counts.sum()
        assert float(found) == pytest.approx(float(-(shares * shares.log2()).sum()), rel=1e-12)
