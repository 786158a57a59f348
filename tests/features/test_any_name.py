"""Any timm name works as a backbone or is refused clearly; `benchmarks/robustness/backbones.py` tries sixty."""

import importlib
from pathlib import Path

import pytest


@pytest.fixture
def backbones(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    return importlib.import_module("benchmarks.robustness.backbones")


@pytest.mark.parametrize(
    "name",
    ["resnet10t", "vit_tiny_patch16_224", "eva02_tiny_patch14_224", "swin_tiny_patch4_window7_224", "mixer_s16_224"],
)
def test_a_backbone_of_another_kind(backbones, name):
    outcome, words = backbones.judge(name)
    assert outcome in ("works", "refused"), words


def test_names_are_of_different_families(backbones):
    names = backbones.spread(60)
    assert len(set(names)) == 60
    assert len({name.split("_")[0] for name in names}) > 45


def test_what_is_no_name_is_refused(backbones):
    assert backbones.judge("resnet10x")[0] == "refused"
