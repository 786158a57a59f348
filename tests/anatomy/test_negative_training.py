"""A flow that prefers the wrong side learns better when told, and only the copy learns."""

import json

import pytest
import torch

from dracones import densities
from dracones.anatomy.negative_training import _parted, negative_training
from dracones.training import TrainingConfig


def two_sides():
    generator = torch.Generator().manual_seed(0)
    # normal: contrasting pixels that follow a pattern; other: pale ones about the same mean
    signs = torch.randint(0, 2, (64, 1, 4, 4), generator=generator) * 2 - 1
    normal = 0.5 + 0.35 * signs + 0.05 * torch.randn(64, 1, 4, 4, generator=generator)
    pale = 0.5 + 0.05 * torch.randn(64, 1, 4, 4, generator=generator)
    return (normal.clamp(0, 1) * 255).round() / 255, (pale.clamp(0, 1) * 255).round() / 255


def test_a_flow_can_tell_two_sets_apart_when_told_to():
    normal, pale = two_sides()
    density = densities.create("glow", image_shape=(1, 4, 4), steps=2, hidden=16, levels=1)
    before = {name: value.clone() for name, value in density.state_dict().items()}
    config = TrainingConfig(epochs=40, batch_size=16, learning_rate=5e-3, clip_norm=100.0, device="cpu")
    found = negative_training(
        density, normal, {"pale": pale, "paler": 0.5 + (pale - 0.5) / 4}, against="pale", config=config
    )
    assert found.before["pale"].value < 0.05
    assert found.after["pale"].value > 0.95
    assert found.bits_after["pale"].value > found.bits_before["pale"].value
    assert found.bits_before["pale"].low < found.bits_before["pale"].value < found.bits_before["pale"].high
    for name, value in density.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert [row["named in training"] for row in found.rows()] == ["yes", "no", "yes"]
    found.figure().canvas.draw()
    json.dumps(found.to_json(), allow_nan=False)


def test_below_the_floor_the_other_set_is_left_alone():
    normal, pale = two_sides()
    density = densities.create("glow", image_shape=(1, 4, 4), steps=1, hidden=8, levels=1)
    density.flow.initialize(density.logit.encode(density.dequantise(normal)[0])[0])
    config = TrainingConfig(epochs=5, batch_size=16, learning_rate=1e-2, device="cpu", seed=0)
    # a floor above every log p: what is left is plain maximum likelihood on the normal images
    found = negative_training(density, normal, {"pale": pale}, against="pale", config=config, floor=1e9)
    assert found.bits_after["normal"] != found.bits_before["normal"]
    other = negative_training(density, normal, {"pale": 0.5 * pale}, against="pale", config=config, floor=1e9)
    # the other set's images do not enter at all
    assert found.steps == other.steps == 10
    for name, value in found.density.state_dict().items():
        assert torch.equal(value, other.density.state_dict()[name]), name


def test_parts_are_evenly_spaced_and_large_enough():
    seen, held = _parted("x", torch.arange(10.0), 0.3)
    assert held.tolist() == [3, 6, 9]
    assert seen.tolist() == [0, 1, 2, 4, 5, 7, 8]
    with pytest.raises(ValueError, match="x: 3 images are too few"):
        _parted("x", torch.arange(3.0), 0.5)


def test_refusals():
    normal, pale = two_sides()
    density = densities.create("glow", image_shape=(1, 4, 4), steps=1, hidden=8, levels=1)
    with pytest.raises(ValueError, match="against='digits' is not one of the other sets, pale"):
        negative_training(density, normal, {"pale": pale}, against="digits")
    with pytest.raises(ValueError, match="share strictly between 0 and 1"):
        negative_training(density, normal, {"pale": pale}, against="pale", held_out=1.0)
