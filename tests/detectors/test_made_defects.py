"""How small a made defect a detector sees: counted on images it has not met, the same for the same seed."""

import numpy as np
import pytest
import torch
from PIL import Image

import dracones
from dracones.detectors import sensitivity
from dracones.detectors.made_defects import _Made
from dracones.images import DEFECT_KINDS, open_images
from feature_case import SMALL, normals


@pytest.fixture(scope="module")
def fitted():
    detector = dracones.create("patchcore", **SMALL, memory_share=0.02, calibration_share=0.0).fit(normals(30))
    return detector.calibrate(normals(60, seed=7), false_alarm_rate=0.05)


@pytest.fixture(scope="module")
def found(fitted):
    return sensitivity(fitted, normals(8, seed=20), sizes=(0.03, 0.5), contrasts=(0.1, 1.0), defects=8)


def test_large_defects_are_found_and_specks_are_not(found):
    shares = {(cell.kind, cell.size, cell.contrast): cell.found.share.value for cell in found.cells}
    assert len(found.cells) == len(DEFECT_KINDS) * 2 * 2
    assert shares["missing", 0.5, 1.0] > 0.8
    assert shares["scar", 0.5, 1.0] > 0.8
    faint = np.mean([shares[kind, 0.03, 0.1] for kind in DEFECT_KINDS])
    assert faint < 0.4, "a speck of a tenth of the contrast raises about as many alarms as nothing"
    assert found.good.total == 8
    assert found.false_alarm_rate == 0.05


def test_counts_are_those_of_the_verdicts(fitted, found):
    made = _Made(open_images(normals(8, seed=20)), list(DEFECT_KINDS), [0.03, 0.5], [0.1, 1.0], 8, 0)
    assert len(made) == 160
    flags = fitted.predict(torch.stack([made[i] for i in range(160)])).is_anomaly
    assert [cell.found.count for cell in found.cells] == flags.reshape(-1, 8).sum(axis=1).tolist()


def test_a_defect_keeps_its_image_through_sizes_and_contrasts(fitted):
    del fitted
    images = normals(8, seed=20)
    made = _Made(open_images(images), ["missing"], [0.1, 0.4], [0.5, 1.0], 4, seed=3)
    for number in range(4):
        found = [made.defect(0, size, contrast, number) for size in (0.1, 0.4) for contrast in (0.5, 1.0)]
        # what was not marked is the same image's, to the level
        source = images[made.images.subset([made.order[number]])._indices[0]]
        for one in found:
            assert torch.equal(one.image[:, ~one.mask], source[:, ~one.mask])
        assert torch.equal(found[0].mask, found[1].mask)
        assert found[0].mask.sum() < found[2].mask.sum()
    assert torch.equal(made[5], made[5])
    assert len(set(made.order)) == 4, "no image is taken twice before every one was taken once"


def test_the_same_seed_gives_the_same_table_and_another_gives_another(fitted, found):
    again = sensitivity(fitted, normals(8, seed=20), sizes=(0.5, 0.03), contrasts=(1.0, 0.1), defects=8)
    assert again.rows() == found.rows()
    other = sensitivity(fitted, normals(8, seed=20), sizes=(0.03, 0.5), contrasts=(0.1, 1.0), defects=8, seed=1)
    assert not torch.equal(other.examples["patch"][1].image, found.examples["patch"][1].image)


def test_seen_from_is_the_size_from_which_all_are_found(found):
    from dataclasses import replace

    from dracones.detectors.alarms import Alarms

    def alarms(count):
        return Alarms.of(np.arange(10) < count, 0.95)

    cells = [
        replace(found.cells[0], size=size, contrast=1.0, found=alarms(count))
        for size, count in ((0.1, 10), (0.2, 5), (0.3, 9), (0.4, 10))
    ]
    assert replace(found, cells=tuple(cells)).seen_from("patch", 1.0) == 0.3
    assert replace(found, cells=tuple(cells[:2])).seen_from("patch", 1.0) is None


def test_images_that_were_learnt_from_are_refused(fitted):
    with pytest.raises(ValueError, match="learnt from"):
        sensitivity(fitted, normals(30), defects=2)
    with pytest.warns(RuntimeWarning, match="learnt from"):
        few = sensitivity(
            fitted, torch.cat([normals(30)[:2], normals(8, seed=20)]), sizes=(0.5,), contrasts=(1.0,), defects=2
        )
    assert few.good.total == 8


def test_bad_gradings_and_a_missing_threshold_are_refused(fitted):
    for bad in ((), (0.0,), (0.5, 0.5), (1.5,)):
        with pytest.raises(ValueError, match="sizes: expected different shares"):
            sensitivity(fitted, normals(8, seed=20), sizes=bad)
    with pytest.raises(ValueError, match="at least one of each kind"):
        sensitivity(fitted, normals(8, seed=20), defects=0)
    bare = dracones.create("patchcore", **SMALL, memory_share=0.02, calibration_share=0.0).fit(normals(12))
    with pytest.raises(ValueError, match="no threshold is set"):
        sensitivity(bare, normals(8, seed=20))


def test_few_images_are_said_to_tell_less(fitted):
    found = sensitivity(fitted, normals(2, seed=20), sizes=(0.5,), contrasts=(1.0,), defects=4)
    assert "intervals are too narrow" in found.notes[1]


def test_images_of_sixteen_bits_keep_their_levels():
    from dracones.images.sources import ArraySource

    pixels = np.random.default_rng(0).integers(0, 65536, (3, 24, 24, 1)).astype(np.uint16)
    made = _Made(open_images(ArraySource(pixels, "deep")), ["scar"], [0.3], [1.0], 3, 0)
    assert made[0].dtype == torch.uint16


def test_the_verb_writes_page_and_table(fitted, tmp_path, monkeypatch, capsys):
    import csv
    import sys

    from dracones.cli import main

    (tmp_path / "good").mkdir()
    for i, image in enumerate(normals(4, seed=20)):
        Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()).save(tmp_path / "good" / f"{i}.png")
    fitted.save(tmp_path / "m.safetensors")
    words = ["sensitivity", "m.safetensors", "good", "-o", "s.html", "--table", "s.csv", "--defects", "3"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["dracones", *words, "--size", "0.5", "--contrast", "1"])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert not ended.value.code, err
    rows = list(csv.DictReader((tmp_path / "s.csv").open()))
    assert [row["kind"] for row in rows] == list(DEFECT_KINDS)
    assert "made defects found, of 3 each" in out
    assert "synthetic" in err
    page = (tmp_path / "s.html").read_text()
    assert page.count("data:image/webp") + page.count("data:image/png") >= len(DEFECT_KINDS)
    assert "not which real defects" in page


def test_one_good_image_is_enough_and_none_is_refused(fitted, tmp_path):
    for i in range(2):
        (tmp_path / f"{i}.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"[Nn]one of the 2 images"):
        sensitivity(fitted, str(tmp_path), sizes=(0.5,), contrasts=(1.0,), defects=2)
    found = sensitivity(fitted, normals(1, seed=20), sizes=(0.5,), contrasts=(1.0,), defects=2)
    assert found.good.total == 1
    assert all(cell.found.total == 2 for cell in found.cells)
