"""`evaluate` and `report` take an exported file as any model, say the same, and import no torch."""

import json

import numpy as np
import pytest
from PIL import Image

from dracones.detectors import evaluate
from dracones.runtime import load
from exported_line import pictures, without_torch

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def category(tmp_path_factory):
    """A category in MVTec-AD layout, its defects bright squares."""
    root = tmp_path_factory.mktemp("sets") / "plate"
    normal, odd = pictures(12, 80, 72, seed=40), pictures(6, 80, 72, seed=41)
    odd[:, 20:44, 30:60] = 255
    for part, images in (("train/good", normal[:2]), ("test/good", normal), ("test/square", odd)):
        (root / part).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(root / part / f"{i}.png")
    (root / "ground_truth" / "square").mkdir(parents=True)
    mask = np.zeros((80, 72), dtype=np.uint8)
    mask[20:44, 30:60] = 255
    for i in range(6):
        Image.fromarray(mask).save(root / "ground_truth" / "square" / f"{i}_mask.png")
    return root


def test_an_evaluation_without_torch_is_the_detectors(padim, line, category, tmp_path):
    found = json.loads(without_torch("evaluate", line, "--mvtec", category, "--json"))
    expected = evaluate(padim, str(category / "test/good"), _masked(category)).to_json()
    assert found.pop("skipped") == []
    for level in ("image", "pixel"):
        for name, values in expected[level].items():
            assert found[level][name] == pytest.approx(values, abs=1e-4), name
    assert {name: found[name] for name in ("alarms", "promise", "counts", "masked", "notes")} == {
        name: expected[name] for name in ("alarms", "promise", "counts", "masked", "notes")
    }


def _masked(category):
    from dracones.images import open_images

    return open_images(str(category / "test/square"), masks=category / "ground_truth/square")


def test_a_report_without_torch_shows_scores_and_maps(line, category, tmp_path):
    sides = ["--normal", category / "test/good", "--anomalous", category / "test/square"]
    without_torch("report", line, *sides, "--masks", category / "ground_truth/square", "-o", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "pixel AUROC" in page
    assert page.count("data:image/png") >= 12


def test_images_that_the_fit_learnt_from_cannot_judge_an_exported_file(line, padim, category, tmp_path):
    learnt = pictures(40, 80, 72)
    with pytest.raises(ValueError, match="learnt from"):
        evaluate(load(line), learnt[padim.fitted().learnt.holds(_digests(learnt))], str(category / "test/square"))


def _digests(images):
    from dracones.detectors.familiar import digests
    from dracones.images import open_images

    return digests(open_images(images))
