import pytest
from pydantic import ValidationError

from dracones.training import TrainingConfig


def test_it_is_frozen_and_knows_its_fields():
    config = TrainingConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.epochs = 3
    with pytest.raises(ValidationError, match="learning_rat"):
        TrainingConfig(learning_rat=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"milestones": (0.9, 0.8)}, "must not fall"),
        ({"milestones": (80, 90)}, "shares of the run"),
        ({"betas": (0.9, 1.0)}, r"betas must lie in \[0, 1\)"),
        ({"optimizer": "adagrad"}, "adam"),
        ({"learning_rate": 0}, "greater than 0"),
        ({"precision": "fp16"}, "bf16"),
        ({"warmup": -1}, "greater than or equal to 0"),
    ],
)
def test_nonsense_is_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        TrainingConfig(**options)


def test_round_trip_through_json():
    config = TrainingConfig(epochs=4, average=0.99, milestones=(0.5,), clip_norm=2.0)
    assert TrainingConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, 70),
        ({"epochs": 3}, 21),
        ({"max_steps": 5}, 5),
        ({"epochs": 3, "max_steps": 50}, 21),
        ({"max_seconds": 9.0}, None),
        ({"epochs": 2, "max_seconds": 9.0}, 14),
    ],
)
def test_total_steps(options, steps):
    assert TrainingConfig(**options).total_steps(steps_per_epoch=7) == steps
