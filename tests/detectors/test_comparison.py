"""One pass for all guards, near and far apart, and the same scores as each guard gives alone."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import dracones
from dracones.detectors import compare
from dracones.detectors.comparison import classifier_methods
from dracones.images import open_images
from dracones.metrics import auroc

OPTIONS = {"knn": {"k": 3}, "odin": {"epsilon": 0.01}}


@pytest.fixture
def sets(tiny):
    x = tiny.images(80)
    return {
        "train": open_images(x[:50], labels=np.arange(50) % 4),
        "normal": x[50:],
        "near": {"flipped": x[:20].flip(3)},
        "far": {"noise": torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0)), "black": x[:9] * 0},
    }


def test_one_forward_an_image_for_all_methods_but_odin(tiny, sets):
    net = tiny.TinyNet()
    seen = []
    net.register_forward_hook(lambda _m, args, _o: seen.append(len(args[0])))
    methods = [name for name in classifier_methods() if name != "odin"]
    found = compare(net, methods=methods, options={"knn": {"k": 3}}, **sets)
    images = 50 + 30 + 20 + 20 + 9
    assert sum(seen) - images <= 2 * 4  # beside one small batch to find the layer
    assert len(found.rows) == 15 * 3


def test_same_numbers_as_each_guard_alone(tiny, sets):
    found = compare(tiny.TinyNet(), options=OPTIONS, **sets)
    assert set(found.methods) == set(classifier_methods())
    assert not found.failed
    for name in ("msp", "knn", "vim", "odin", "react"):
        guard = dracones.create(name, classifier=tiny.TinyNet(), calibration_share=0.0, **OPTIONS.get(name, {}))
        guard.fit(sets["train"])
        inside, outside = guard.predict(sets["normal"]).scores, guard.predict(sets["far"]["noise"]).scores
        expected = auroc(np.concatenate([inside, outside]), np.repeat([0, 1], [len(inside), len(outside)]))
        (row,) = [r for r in found.rows if r.method == name and r.set == "noise"]
        assert row.metrics["auroc"]["value"] == pytest.approx(expected, abs=1e-6)
        assert row.group == "far"


def test_near_and_far_are_apart_and_intervals_hold_their_value(tiny, sets):
    found = compare(tiny.TinyNet(), methods=["energy"], **sets)
    by_set = {row.set: row for row in found.rows}
    assert {name: row.group for name, row in by_set.items()} == {"flipped": "near", "noise": "far", "black": "far"}
    assert found.mean("auroc", "energy", "near") == by_set["flipped"].metrics["auroc"]["value"]
    far = [by_set[name].metrics["auroc"]["value"] for name in ("noise", "black")]
    assert found.mean("auroc", "energy", "far") == pytest.approx(np.mean(far))
    for row in found.rows:
        for metric in row.metrics.values():
            assert metric["low"] <= metric["value"] <= metric["high"]


def test_json_is_whole(tiny, sets):
    result = json.loads(
        json.dumps(
            compare(tiny.TinyNet(), methods=["msp", "odin"], options={"odin": {"epsilon": 0.0}}, **sets).to_json()
        )
    )
    assert result["counts"] == {"train": 50, "normal": 30, "flipped": 20, "noise": 20, "black": 9}
    assert result["tuning"] == "T=1000, epsilon=0: given by hand"
    assert set(result["means"]["msp"]) == {"near", "far"}
    assert set(result["cpu_seconds"]) == {"shared passes", "msp", "odin"}


def test_method_that_cannot_run_is_left_out_with_its_reason(tiny, sets):
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = tiny.TinyNet()

        def forward(self, x):
            with torch.no_grad():
                return self.net(x)

    found = compare(Frozen(), methods=["msp", "odin", "knn"], options={"knn": {"k": 51}}, **sets)
    assert set(found.methods) == {"msp"}
    assert set(found.failed) == {"odin", "knn"}
    assert "no gradient reaches" in found.failed["odin"]
    assert "k=51 neighbours were asked of 50" in found.failed["knn"]
    with pytest.raises(ValueError, match="no method could run:\nodin: no gradient"):
        compare(Frozen(), methods=["odin"], **sets)


def test_preprocessing_of_the_training_images_holds_for_all(tiny, sets):
    sets["far"] = {"large": torch.rand(5, 3, 16, 16)}
    found = compare(tiny.TinyNet(), methods=["msp"], size=(8, 8), **sets)
    assert found.counts["large"] == 5
    with pytest.raises(ValueError, match="16"):
        compare(tiny.TinyNet(), methods=["msp"], **sets)


def test_refusals(tiny, sets):
    net = tiny.TinyNet()
    with pytest.raises(ValueError, match="give at least one anomalous set"):
        compare(net, train=sets["train"], normal=sets["normal"])
    with pytest.raises(ValueError, match=r"set names must differ.*\['noise'\]"):
        compare(net, **{**sets, "near": {"noise": sets["normal"]}})
    with pytest.raises(ValueError, match=r"must differ.*\['normal'\]"):
        compare(net, **{**sets, "near": {"normal": sets["normal"]}})
    with pytest.raises(ValueError, match=r"unknown method 'mps'"):
        compare(net, methods="mps", **sets)
    with pytest.raises(ValueError, match="glow does not guard a classifier"):
        compare(net, methods=["glow"], **sets)
    with pytest.raises(ValueError, match=r"options for \['knn'\], which are not compared"):
        compare(net, methods=["msp"], options={"knn": {"k": 3}}, **sets)
    with pytest.raises(ValueError, match="no method to compare"):
        compare(net, methods=[], **sets)


def test_named_classifier_is_loaded_once(tmp_path, sets):
    (tmp_path / "nets.py").write_text(
        "from pathlib import Path\nimport torch\nfrom torch import nn\n"
        "def net():\n"
        "    torch.manual_seed(0)  # one network in sixty has too few living units for vim\n"
        "    with Path(__file__).with_suffix('.log').open('a') as log:\n        log.write('x')\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 4))\n"
    )
    found = compare(f"{tmp_path}/nets.py:net", methods=["msp", "energy", "vim"], **sets)
    assert len(found.methods) == 3
    assert (tmp_path / "nets.log").read_text() == "x"


def test_accuracy_is_told_where_labels_are(tiny, sets):
    net = tiny.TinyNet()
    right = net(tiny.images(80)).argmax(dim=1).numpy()
    labelled = {**sets, "normal": open_images(tiny.images(80)[50:], labels=(right[50:] + (np.arange(30) < 3)) % 4)}
    labelled["train"] = open_images(tiny.images(80)[:50], labels=right[:50])
    found = compare(net, methods=["knn"], options={"knn": {"k": 3}}, **labelled)
    assert found.accuracy == {"train": 1.0, "normal": pytest.approx(0.9)}
    assert found.to_json()["accuracy"] == found.accuracy
    unlabelled = {**sets, "train": tiny.images(80)[:50]}
    assert compare(net, methods=["msp"], **unlabelled).accuracy == {}
    labelled["train"] = open_images(tiny.images(80)[:50], labels=(right[:50] + 1) % 4)
    with pytest.warns(UserWarning, match="right on 0.0% of the labelled"):
        compare(net, methods=["knn"], options={"knn": {"k": 3}}, **labelled)


def test_labels_may_be_given_beside_the_images(tiny, sets):
    net = tiny.TinyNet()
    images = tiny.images(80)[:50]
    right = net(images).argmax(dim=1).numpy()
    found = compare(net, methods=["knn"], options={"knn": {"k": 3}}, labels=right, **{**sets, "train": images})
    assert found.accuracy == {"train": 1.0}
