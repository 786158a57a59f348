import pytest
import torch

from dracones.metrics import auroc
from dracones.rules import Rule, create
from dracones.rules.auto import _unseen_scores
from dracones.rules.mixture import Mixture

NAMES = ["log_prob", "level0_log_det", "complexity_webp", "subband1_diagonal"]


def images_of(kind, count, seed):
    """Statistics in which likelihood follows complexity, as for real images."""
    generator = torch.Generator().manual_seed(seed)
    simplicity, slack, volume, own = torch.randn(4, count, generator=generator).double()
    if kind == "simple":  # the paradox: likelier than normal images, because simpler
        simplicity = simplicity + 6
    if kind == "overrated":  # usual likelihood, usual complexity, but not together
        slack = slack - 6
    if kind == "unlikely":
        slack = slack - 20
    if kind == "volume":
        volume = volume + 6
    return {
        "log_prob": -2000 + 200 * simplicity + 30 * slack,
        "level0_log_det": 100 + 10 * volume + 5 * simplicity,
        "complexity_webp": 3000 - 300 * simplicity + 60 * own,
        "subband1_diagonal": -3 - simplicity - 0.3 * own,
    }


@pytest.fixture(scope="module")
def rule():
    rule = create("auto", statistics=NAMES)
    rule.fit(images_of("normal", 600, 0))
    return rule


def separation(rule, kind):
    normal, other = rule.score(images_of("normal", 500, 1)), rule.score(images_of(kind, 500, 2))
    return auroc(torch.cat([normal, other]), torch.cat([torch.zeros(500), torch.ones(500)]))


@pytest.mark.parametrize(
    ("kind", "at_least"), [("simple", 0.97), ("overrated", 0.99), ("unlikely", 0.999), ("volume", 0.95)]
)
def test_a_shift_in_any_direction_shows(rule, kind, at_least):
    assert separation(rule, kind) > at_least


def test_where_likelihood_and_typicality_fail(rule):
    """The same sets by plain likelihood: inverted for simple images, blind to overrated ones."""
    likelihood = create("likelihood")
    assert separation(likelihood, "simple") < 0.05
    assert separation(likelihood, "overrated") < 0.8


def test_nothing_is_seen_where_nothing_is_shifted(rule):
    assert separation(rule, "normal") == pytest.approx(0.5, abs=0.05)


def test_witnesses_say_which_one_speaks(rule):
    evidence = rule.evidence({name: values.double() for name, values in images_of("volume", 200, 3).items()})
    assert set(evidence) == {"joint", "surprise", "complexity"}
    assert float(evidence["joint"].median()) > 4
    assert float(evidence["surprise"].median()) < 4
    total = rule.score(images_of("volume", 200, 3))
    torch.testing.assert_close(total, -rule.tail_of_pixels.log_p(sum(evidence.values())))
    assert len(rule.voices) == len(evidence)


def test_the_score_is_evidence_itself(rule):
    """Witnesses that agree are not counted as if they were strangers: the merged p-value is calibrated once more."""
    assert 0.6 < float(rule.score(images_of("normal", 3000, 4)).mean()) < 1.15


def test_evidence_of_normal_images_is_exponential(rule):
    """Minus the log of a uniform p-value has mean 1: the tails were calibrated on images not fitted on.

    Somewhat less is the safe side: the final fit has seen twice the images of the folds that calibrate.
    """
    for values in rule.evidence({k: v.double() for k, v in images_of("normal", 3000, 4).items()}).values():
        assert 0.6 < float(values.mean()) < 1.15


def with_companions(kind, count, seed):
    """The same images with a layout and an embedding that see nothing of them but what `kind` says."""
    generator = torch.Generator().manual_seed(seed + 100)
    layout, embedding = torch.randn(2, count, generator=generator).double()
    statistics = images_of("normal" if kind in ("layout", "embedding") else kind, count, seed)
    own = 40 * (statistics["complexity_webp"] - 3000) / 300
    return {
        **statistics,
        "layout_log_prob": -100 - own + 10 * layout - (60 if kind == "layout" else 0),
        "embedding_log_prob": -300 + 20 * embedding - (60 if kind == "embedding" else 0),
    }


@pytest.fixture(scope="module")
def companions():
    rule = create("auto", statistics=[*NAMES, "layout_log_prob", "embedding_log_prob"])
    rule.fit(with_companions("normal", 600, 0))
    return rule


def of_companions(rule, kind, witness=None):
    def scores(which, seed):
        statistics = with_companions(which, 500, seed)
        return rule.score(statistics) if witness is None else rule.evidence(statistics)[witness]

    normal, other = scores("normal", 1), scores(kind, 2)
    return auroc(torch.cat([normal, other]), torch.cat([torch.zeros(500), torch.ones(500)]))


@pytest.mark.parametrize("kind", ["layout", "embedding"])
def test_what_one_companion_alone_sees_is_not_lost(companions, kind):
    alone = of_companions(companions, kind, kind)
    assert alone > 0.95
    assert of_companions(companions, kind) > alone - 0.05
    evidence = companions.evidence(with_companions(kind, 300, 3))
    loudest = torch.stack(list(evidence.values()), dim=1).argmax(dim=1).mode().values
    assert list(evidence)[int(loudest)] == kind


def test_pixels_and_embedding_have_one_say_each(companions):
    """Four witnesses of pixels that see nothing cost the embedding no more than one would."""
    assert set(companions.witnesses) == {"joint", "surprise", "layout", "complexity", "embedding"}
    statistics = with_companions("normal", 200, 5)
    evidence = companions.evidence(statistics)
    pixels = sum(values for name, values in evidence.items() if name != "embedding")
    expected = -companions.tail_of_pixels.log_p(pixels) + evidence["embedding"]
    torch.testing.assert_close(companions.score(statistics), expected)


def test_an_embedding_alone_is_a_rule():
    rule = create("auto", statistics=["embedding_log_prob"])
    rule.fit(with_companions("normal", 100, 0))
    assert of_companions(rule, "embedding") > 0.95


def test_witnesses_follow_the_statistics_at_hand():
    assert set(create("auto", statistics=["log_prob", "log_det"]).witnesses) == {"joint"}
    assert set(create("auto", statistics=["log_prob", "contrast"]).witnesses) == {"joint", "surprise"}
    assert set(create("auto", statistics=["complexity_png"]).witnesses) == {"joint"}
    latent = create("auto", statistics=["log_prob", "log_prob_latent", "contrast"])
    assert set(latent.witnesses) == {"joint", "surprise", "surprise_latent"}
    assert set(create("auto", statistics=["layout_log_prob", "contrast"]).witnesses) == {"joint", "layout"}


@pytest.mark.parametrize("count", [2, 3, 8, 50])
def test_few_normal_images_are_enough_to_run(count):
    rule = create("auto", statistics=NAMES)
    rule.fit(images_of("normal", count, 0))
    scores = rule.score(images_of("unlikely", 20, 1))
    assert bool(torch.isfinite(scores).all())


def test_fit_is_repeatable_and_leaves_global_generators_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    scores = []
    for _ in range(2):
        rule = create("auto", statistics=NAMES)
        rule.fit(images_of("normal", 300, 0))
        scores.append(rule.score(images_of("simple", 20, 1)))
    assert torch.equal(scores[0], scores[1])
    assert torch.equal(before, torch.get_rng_state())


def test_mixture_density_is_scikit_learns_and_its_size_follows_the_data():
    from sklearn.mixture import GaussianMixture

    generator = torch.Generator().manual_seed(0)
    one = torch.randn(900, 2, generator=generator).double()
    four = one + 12 * torch.randint(0, 2, (900, 2), generator=generator)
    single, many, fixed = Mixture(2), Mixture(2), Mixture(2, components=(3,), ridges=(1e-3,))
    single.fit_rows(one)
    many.fit_rows(four)
    fixed.fit_rows(four)
    assert len(single.weights) == 1
    assert len(many.weights) == 4
    reference = GaussianMixture(3, reg_covar=1e-3, random_state=0, max_iter=200).fit(four.numpy())
    expected = -torch.as_tensor(reference.score_samples(four.numpy()))
    torch.testing.assert_close(fixed.rows_score(four), expected, rtol=1e-6, atol=1e-6)


def test_surprise_is_the_residual_of_a_regression():
    statistics = images_of("normal", 500, 0)
    rule = create("surprise", given=["complexity_webp", "subband1_diagonal"])
    rule.fit(statistics)
    scores = rule.score(statistics)
    simplicity = statistics["complexity_webp"]
    assert abs(float(torch.corrcoef(torch.stack([scores, simplicity]))[0, 1])) < 0.05
    raised = {**statistics, "log_prob": statistics["log_prob"] + 50}
    assert bool((rule.score(raised) < scores).all())
    with pytest.raises(ValueError, match="at least one statistic"):
        create("surprise", given=[])


class Remembers(Rule):
    """1 for numbers that it was fitted on, 0 for others."""

    requires = ("number",)

    def _fit(self, statistics):
        self.seen = statistics["number"].clone()

    def _score(self, statistics):
        return torch.isin(statistics["number"], self.seen).double()


@pytest.mark.parametrize(("count", "seen"), [(40, 0.0), (41, 0.0), (2, 1.0)])
def test_p_values_rest_on_images_that_their_witness_has_not_seen_unless_there_are_too_few(count, seen):
    numbers = torch.arange(count, dtype=torch.float64)
    assert _unseen_scores(Remembers(), {"number": numbers}).tolist() == [seen] * count


def test_scores_of_unseen_images_stand_in_the_images_order():
    class Itself(Remembers):
        def _score(self, statistics):
            return statistics["number"]

    numbers = torch.arange(9, dtype=torch.float64)
    assert torch.equal(_unseen_scores(Itself(), {"number": numbers}), numbers)
