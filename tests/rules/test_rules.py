import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from dracones import rules
from dracones.rules import create, names


def normal_statistics(count=400, seed=0):
    generator = torch.Generator().manual_seed(seed)
    latent = torch.randn(count, generator=generator).double()
    log_det = torch.randn(count, generator=generator).double()
    return {
        "log_prob": latent + log_det - 10,
        "log_prob_latent": latent,
        "log_det": log_det - 10,
        "complexity_webp": 1000 + 20 * torch.randn(count, generator=generator).double(),
        "background_log_prob": latent - 12,
        "ensemble_log_prob_mean": latent - 10,
        "ensemble_log_prob_variance": latent.square(),
        "likelihood_regret": latent.square(),
        "gradient_norm": latent.abs(),
        "intrinsic_dimension": 50 + latent,
    }


ALL = [(name, {}) for name in names()] + [
    ("dose", {"method": "svm"}),
    ("latent", {"sides": "two"}),
    ("volume", {"sides": "two"}),
    ("auto", {"statistics": ["log_prob", "log_det", "complexity_webp"]}),
]


@pytest.fixture(params=ALL, ids=lambda pair: f"{pair[0]}{'-' if pair[1] else ''}{'-'.join(map(str, pair[1]))}")
def rule(request):
    name, options = request.param
    return create(name, **options)


def test_scores_are_finite_float64_and_independent_of_the_batch(rule):
    rule.fit(normal_statistics())
    test = normal_statistics(seed=1, count=7)
    scores = rule.score(test)
    assert scores.shape == (7,)
    assert scores.dtype == torch.float64
    assert bool(torch.isfinite(scores).all())
    alone = torch.cat([rule.score({key: values[i : i + 1] for key, values in test.items()}) for i in range(7)])
    torch.testing.assert_close(scores, alone)
    assert rule.score({key: values[:0] for key, values in test.items()}).shape == (0,)


def test_state_round_trip_into_a_new_rule(rule):
    rule.fit(normal_statistics())
    again = create(rule.config["name"], **{k: v for k, v in rule.config.items() if k != "name"})
    again.load_state_dict(rule.state_dict())
    test = normal_statistics(seed=1, count=5)
    assert torch.equal(rule.score(test), again.score(test))


def test_state_round_trip_inside_another_module(rule):
    rule.fit(normal_statistics())
    again = create(rule.config["name"], **{k: v for k, v in rule.config.items() if k != "name"})
    torch.nn.ModuleDict({"rule": again}).load_state_dict(torch.nn.ModuleDict({"rule": rule}).state_dict())
    test = normal_statistics(seed=1, count=5)
    assert torch.equal(rule.score(test), again.score(test))


def test_far_images_never_tie_nor_overflow(rule):
    """A wild statistic gives a finite score, and one far beyond every normal image's unless the rule ignores it."""
    rule.fit(normal_statistics())
    wild = {key: values[:2] - torch.tensor([1e4, 1e5]) for key, values in normal_statistics(seed=2).items()}
    assert bool(torch.isfinite(rule.score(wild)).all())


def test_casting_or_moving_the_module_around_it_leaves_a_rule_alone(rule):
    rule.fit(normal_statistics())
    test = normal_statistics(seed=1, count=5)
    before = rule.score(test)
    torch.nn.ModuleDict({"rule": rule}).half().to("meta")
    assert torch.equal(rule.score(test), before)


def test_an_infinitely_unlikely_image_is_the_most_anomalous():
    statistics = normal_statistics()
    test = normal_statistics(seed=1, count=5)
    test["log_prob"][2] = -float("inf")
    for name in ("likelihood", "typicality", "complexity", "joint", "auto"):
        rule = create(name)
        rule.fit(statistics)
        scores = rule.score(test)
        assert int(scores.argmax()) == 2
        assert not bool(scores.isnan().any())


def test_missing_and_misshapen_statistics_are_refused(rule):
    statistics = normal_statistics()
    needed = rule.requires[0]
    with pytest.raises(ValueError, match="are missing"):
        rule.fit({key: values for key, values in statistics.items() if key != needed})
    with pytest.raises(ValueError, match="one shape"):
        rule.score({**statistics, needed: statistics[needed][:, None]}) if not rule.needs_fit else rule.fit(
            {**statistics, needed: statistics[needed][:, None]}
        )


def test_non_finite_normal_images_are_refused_with_their_count(rule):
    statistics = normal_statistics()
    statistics[rule.requires[0]][:3] = float("nan")
    with pytest.raises(ValueError, match="not finite for 3 of 400 normal images"):
        rule.fit(statistics)


def test_scoring_before_fitting_is_refused():
    for name in ("typicality", "dose", "auto", "intrinsic_dimension"):
        with pytest.raises(RuntimeError, match=f"{name}: fit the rule"):
            create(name).score(normal_statistics())


def test_unknown_names_and_options():
    with pytest.raises(ValueError, match="unknown rule 'likelyhood'; did you mean 'likelihood'"):
        create("likelyhood")
    with pytest.raises(ValueError, match="unexpected keyword argument"):
        create("likelihood", sides="two")
    with pytest.raises(ValueError, match="sides: expected"):
        create("latent", sides="both")
    with pytest.raises(ValueError, match="method must be"):
        create("dose", method="knn")
    with pytest.raises(ValueError, match="unknown codec 'gif'; known are png, webp, jpeg2000"):
        create("complexity", codec="gif")


# ---- each rule's formula


def test_plain_terms():
    statistics = {
        "log_prob": torch.tensor([-3.0]),
        "log_prob_latent": torch.tensor([-2.0]),
        "log_det": torch.tensor([-1.0]),
    }
    assert [create(name).score(statistics).item() for name in ("likelihood", "latent", "volume")] == [3.0, 2.0, 1.0]


def test_two_sided_term_is_symmetric_in_rank():
    rule = create("volume", sides="two")
    rule.fit({"log_det": torch.linspace(-1, 1, 201)})
    scores = rule.score({"log_det": torch.tensor([-0.9, 0.9, 0.0])})
    assert float(scores[0]) == pytest.approx(float(scores[1]), rel=1e-6)
    assert scores[2] < scores[0]


def test_typicality_is_the_distance_from_the_mean():
    rule = create("typicality")
    rule.fit({"log_prob": torch.tensor([-8.0, -12.0])})
    assert rule.score({"log_prob": torch.tensor([-7.0, -13.0])}).tolist() == [3.0, 3.0]


def test_complexity_subtracts_bits_from_bits():
    rule = create("complexity", codec="png")
    score = rule.score({"log_prob": torch.tensor([-100 * math.log(2)]), "complexity_png": torch.tensor([30.0])})
    assert score.item() == pytest.approx(70.0)


@pytest.mark.parametrize("codec", rules.codecs())
def test_compressed_bits_are_those_of_a_lossless_file(codec):
    image = torch.randint(0, 256, (1, 3, 12, 9), generator=torch.Generator().manual_seed(0)) / 255
    pixels = (image[0] * 255).round().byte().numpy().transpose(1, 2, 0)
    buffer = io.BytesIO()
    options = {"png": {"optimize": True}, "webp": {"lossless": True, "quality": 100, "method": 4}, "jpeg2000": {}}
    Image.fromarray(pixels).save(buffer, format=codec, **options[codec])
    assert rules.complexity(image, codec).item() == 8 * len(buffer.getvalue())
    assert np.array_equal(np.asarray(Image.open(buffer).convert("RGB")), pixels)


@pytest.mark.parametrize("codec", rules.codecs())
def test_simple_images_compress_better(codec):
    generator = torch.Generator().manual_seed(0)
    flat = torch.full((1, 1, 28, 28), 0.5)
    ramp = torch.linspace(0, 1, 28).expand(1, 1, 28, 28)
    noise = torch.rand(1, 1, 28, 28, generator=generator)
    bits = rules.complexity(torch.cat([flat, ramp, noise]), codec)
    assert bits[0] < bits[1] < bits[2]
    many = rules.complexity(torch.cat([flat, ramp, noise]).repeat(30, 1, 1, 1), codec)
    assert torch.equal(many, bits.repeat(30))


def test_dose_is_the_sum_of_scipys_kernel_densities():
    from scipy.stats import gaussian_kde

    statistics = normal_statistics(300)
    rule = create("dose")
    rule.fit(statistics)
    test = normal_statistics(20, seed=3)
    expected = torch.zeros(20).double()
    for name in ("log_prob", "log_prob_latent", "log_det"):
        values = statistics[name].numpy()
        kernel = gaussian_kde(values, bw_method=len(values) ** -0.2)
        # the rule works in units of the standard deviation
        expected -= torch.as_tensor(np.log(kernel(test[name].numpy()) * values.std(ddof=1)))
    torch.testing.assert_close(rule.score(test), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", ["kde", "svm"])
def test_dose_of_a_statistic_that_never_moves_is_finite(method):
    rule = create("dose", statistics=["a", "b"], method=method)
    still, moving = torch.full((50,), 3.0).double(), torch.linspace(-1, 1, 50).double()
    rule.fit({"a": still, "b": moving})
    assert float(rule.spread[0]) == pytest.approx(4e-6)
    usual, odd = rule.score({"a": torch.tensor([3.0, 3.1]).double(), "b": torch.zeros(2).double()})
    assert torch.isfinite(torch.stack([usual, odd])).all()
    assert odd > usual


def test_dose_svm_is_scikit_learns():
    from sklearn.svm import OneClassSVM

    statistics = normal_statistics(200)
    rule = create("dose", method="svm", nu=0.2)
    rule.fit(statistics)
    rows = torch.stack([statistics[name] for name in rule.requires], 1)
    scaled = ((rows - rows.mean(0)) / rows.std(0)).numpy()
    machine = OneClassSVM(gamma=1 / 3, nu=0.2).fit(scaled)
    np.testing.assert_allclose(rule.score(statistics).numpy(), -machine.decision_function(scaled), atol=1e-8)


def test_dose_thins_many_points_without_moving_the_density():
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(0)).double()
    thin, full = (create("dose", statistics=["x"], most_points=most) for most in (2000, 20_000))
    for each in (thin, full):
        each.fit({"x": values})
    grid = {"x": torch.linspace(-2.5, 2.5, 21).double()}
    torch.testing.assert_close(thin.score(grid), full.score(grid), rtol=0.01, atol=0.01)


def test_ratio_waic_and_regret():
    statistics = {
        "log_prob": torch.tensor([-10.0]),
        "background_log_prob": torch.tensor([-13.0]),
        "ensemble_log_prob_mean": torch.tensor([-10.0]),
        "ensemble_log_prob_variance": torch.tensor([4.0]),
        "likelihood_regret": torch.tensor([6.0]),
    }
    scores = {name: create(name).score(statistics).item() for name in ("likelihood_ratio", "waic", "likelihood_regret")}
    assert scores == {"likelihood_ratio": -3.0, "waic": 14.0, "likelihood_regret": 6.0}


def test_replaced_pixels_are_uniform_and_as_many_as_asked():
    images = torch.full((4, 1, 100, 100), 0.5)
    generator = torch.Generator().manual_seed(0)
    changed = rules.replace_pixels(images, rate=0.3, generator=generator)
    new = changed[changed != 0.5]
    assert len(new) / 40_000 == pytest.approx(0.3, abs=0.01)
    assert float(new.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(new.var()) == pytest.approx(1 / 12, abs=0.005)
    with pytest.raises(ValueError, match="probability"):
        rules.replace_pixels(images, rate=1.5, generator=generator)


def test_intrinsic_dimension_rule_wants_both_density_and_dimension():
    rule = create("intrinsic_dimension")
    rule.fit(normal_statistics())
    typical, thin, unlikely = rule.score(
        {"log_prob": torch.tensor([-10.0, -10.0, -30.0]), "intrinsic_dimension": torch.tensor([50.0, 20.0, 50.0])}
    )
    assert thin > typical
    assert unlikely > typical
