"""What a fit hands to whom: parts, seeds, checkpoints, modes. Each of these can go wrong without any score failing."""

import pytest
import torch
from torch import nn

import dracones
from dracones.detectors import Detector
from dracones.detectors.splitting import split
from dracones.images import open_images
from dracones.methods import Method, MethodConfig, MethodInfo, Scores, Trainee, registry
from dracones.training import TrainingConfig

SMALL = {"density": {"steps": 1, "hidden": 4}, "epochs": 1, "batch_size": 16}


class TwinsConfig(MethodConfig):
    training: TrainingConfig = TrainingConfig(max_steps=3, batch_size=8, learning_rate=0.1)


class Walk(nn.Module):
    """Follows the noise it is given, so that its weight tells the seed of its run."""

    def __init__(self):
        super().__init__()
        self.at = nn.Parameter(torch.zeros(4))

    def training_loss(self, batch, *, generator=None):
        return ((self.at - torch.randn(4, generator=generator)) ** 2).mean() + 0.0 * batch.mean()


class TwinsMethod(Method):
    """Two equal modules, trained one after the other; neither is the method itself."""

    Config = TwinsConfig
    info = MethodInfo("twins", "A test", ("Nobody",), 2024, "none", "likelihood", gives=("score",))

    def build(self, image_shape):
        self.twins = nn.ModuleList([Walk(), Walk()])
        self.noise = nn.Dropout(0.5)
        self.norm = nn.BatchNorm2d(image_shape[0])
        self.register_buffer("statistic", torch.zeros(()))

    def trainees(self, parts, progress=None):
        for number, twin in enumerate(self.twins):
            yield Trainee(number, twin, self.config.training, self.training_data(parts.train), None)

    def fit_statistics(self, context):
        images = next(iter(context.held_out.batches(64))).images
        self.statistic.copy_(self.norm(self.noise(images)).mean())

    def forward(self, images, host=None):
        return Scores((self.norm(self.noise(images)) - self.statistic).abs().mean(dim=(1, 2, 3)))


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(registry.METHODS._entered, "twins", TwinsMethod)


def twins(**options):
    return Detector(TwinsMethod(**options))


def images(count=60, seed=0):
    """Images of 8 levels that rise from left to right, each of a brightness of its own."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 60, (count, 1, 8, 8), generator=generator)
    return (torch.arange(8) * 10 + noise + torch.randint(0, 120, (count, 1, 1, 1), generator=generator)) / 255


def parts_of(detector, data):
    """What trained and what was held out, as tensors."""
    config = detector.config
    parts = split(open_images(data), config.validation_share, config.calibration_share, config.seed)
    return tuple(part.with_preprocess(detector.preprocess).to_tensor() for part in (parts.train, parts.validation))


def mean_log_prob(detector, images):
    with torch.no_grad():
        return detector.method.density.log_prob(images).double().mean().item()


def test_the_rule_is_fitted_on_held_out_images_and_not_on_those_that_train():
    data = images()
    detector = dracones.create("glow", rule="typicality", **SMALL).fit(data)
    train, held_out = parts_of(detector, data)
    mean = detector.method.rule.mean.item()
    assert mean == pytest.approx(mean_log_prob(detector, held_out), rel=1e-5)
    assert mean != pytest.approx(mean_log_prob(detector, train), rel=1e-3)


def test_without_a_held_out_part_the_rule_is_fitted_on_what_trains():
    data = images(20)
    options = {**SMALL, "validation_share": 0.0, "calibration_share": 0.0}
    detector = dracones.create("glow", rule="typicality", **options).fit(data)
    assert detector.method.rule.mean.item() == pytest.approx(mean_log_prob(detector, data), rel=1e-5)


def test_each_trainee_has_a_seed_of_its_own():
    first, second = twins(seed=5).fit(images()).method.twins
    assert not torch.equal(first.at, second.at)
    # The second run of one seed is the first of the next.
    assert torch.equal(second.at, twins(seed=6).fit(images()).method.twins[0].at)


def test_each_trainee_has_a_checkpoint_of_its_own_that_a_second_fit_goes_on_from(tmp_path):
    checkpoint = tmp_path / "run.ckpt"
    first = twins().fit(images(), checkpoint=checkpoint)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.ckpt", "run.ckpt.1"]
    second = twins().fit(images(), checkpoint=checkpoint)
    assert [run["resumed_from"] for run in second.provenance["training"]] == [3, 3]
    for one, other in zip(first.method.twins, second.method.twins, strict=True):
        assert torch.equal(one.at, other.at)


def test_statistics_are_gathered_in_eval_mode():
    detector = twins().fit(images())
    _, held_out = parts_of(detector, images())
    expected = held_out.mean() / (1 + 1e-5) ** 0.5  # a new BatchNorm in eval mode
    torch.testing.assert_close(detector.method.statistic, expected)
    assert detector.method.norm.num_batches_tracked == 0


def test_scoring_is_in_eval_mode_whatever_was_done_to_the_method():
    detector, some = twins().fit(images()), images(9, seed=1)
    expected = detector.predict(some).scores.tolist()
    detector.method.train()
    assert detector.predict(some).scores.tolist() == expected
    assert detector.method.norm.num_batches_tracked == 0


def test_a_loaded_pipeline_scores_in_eval_mode_without_its_detector(tmp_path):
    detector, some = twins().fit(images()), images(9, seed=1)
    expected = detector.predict(some).scores
    loaded = dracones.load(detector.save(tmp_path / "twins.safetensors"))
    scores = loaded.pipeline.method(some).image
    torch.testing.assert_close(scores, torch.as_tensor(expected, dtype=scores.dtype))
