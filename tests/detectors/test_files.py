"""What a detector's file promises: equal fits, equal digests; altered, forged and greedy files refused by name."""

import json
import subprocess
import sys
import time

import pytest
import torch

import dracones
from dracones.detectors.header import divide, unite
from dracones.files import storage
from feature_case import SMALL, normals


def images(count=60):
    return (torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 255).round() / 255


def glow(**options):
    options = {"density": {"hidden": 4, "steps": 1}, "rule": "typicality", "epochs": 1, **options}
    return dracones.create("glow", false_alarm_rate=0.2, **options).fit(images())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return glow().save(tmp_path_factory.mktemp("saved") / "glow.safetensors")


def forge(source, target, change):
    """The file with a header that `change` edited, and digests computed anew."""
    with storage.opened(source) as stored:
        header, origin, tensors = json.loads(json.dumps(stored.header)), stored.origin, stored.tensors()
    change(header, tensors)
    storage.write(target, header, tensors, origin)
    return target


def test_equal_fits_have_equal_digests_and_other_fits_others(tmp_path, saved):
    again, other = glow(), glow(seed=1)
    again.save(tmp_path / "again.safetensors")
    other.save(tmp_path / "other.safetensors")
    first = dracones.load(saved)
    assert first.provenance["digest"] == again.provenance["digest"] != other.provenance["digest"]
    # What differed is there, and is covered by a digest of its own.
    assert first.provenance["fitted_at"] <= again.provenance["fitted_at"]


def test_a_new_calibration_is_another_model(saved):
    detector = dracones.load(saved)
    assert "digest" in detector.provenance
    detector.calibrate(false_alarm_rate=0.5)
    assert "digest" not in detector.provenance


def test_provenance_is_divided_and_united():
    facts = {
        "seed": 1,
        "seconds": 2.0,
        "training": [{"steps": 1, "history": [{"loss": 1.0, "seconds": 0.5}]}, {}],
        "n": [],
    }
    kept, varying = divide(facts)
    assert "seconds" not in json.dumps(kept)
    assert unite(kept, varying) == facts
    with pytest.raises(ValueError, match="does not belong"):
        unite(kept, {"training": [1]})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("method", "glo", "did you mean 'glow'"),
        ("config.density", {"hidden": 4, "steps": 100_000}, "asks for more than"),
        ("config.density", {"hidden": 4, "steps": 10**9}, "asks for more than"),
        ("config.density", {"hidden": 10**6, "steps": 1}, "asks for more than"),
        ("config.seed", "3", "config.seed: got 3, which is read as 3"),
        ("config.unheard_of", 1, "config.unheard_of: Extra inputs are not permitted"),
        ("image_shape", [1, 8], "image_shape"),
        ("image_shape", [65536, 65536, 1], "more than"),
        ("image_shape", [1, 16, 16], "treatment makes images of"),
        ("preprocess.size", [0, 0], "at least 1"),
        ("calibration.threshold", 1e9, "is not what its 6 calibration scores promise"),
        ("calibration.threshold", None, "threshold and false_alarm_rate go together"),
        ("calibration.threshold", True, "threshold"),
        ("calibration.false_alarm_rate", 7.0, "less than 1"),
        ("calibration.false_alarm_rate", 0.6, "is not what its 6 calibration scores promise"),
        ("calibration.confidence", 0.999, "at least"),
        ("calibration.count", 5, "expected 5 scores, got 6"),
        ("calibration.heat", {"usual": 0.0, "threshold": 1.0}, "do not belong together"),
        ("extras", {"classifier": {}}, "extras.classifier"),
        ("unheard_of", 1, "header.unheard_of"),
    ],
)  # fmt: skip
def test_a_forged_header_is_refused_by_name_and_at_once(saved, tmp_path, path, value, message):
    def change(header, tensors):
        *holders, last = path.split(".")
        for key in holders:
            header = header[key]
        header[last] = value

    target = forge(saved, tmp_path / "forged.safetensors", change)
    started = time.process_time()
    with pytest.raises(ValueError, match=message) as caught:
        dracones.load(target)
    assert str(target) in str(caught.value)
    assert time.process_time() - started < 20  # CPU seconds: another's load is no matter


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update({"state.x": torch.ones(1)}), "has also x"),
        (lambda t: t.update({"other": torch.ones(1)}), "tensors that no detector has: other"),
        (lambda t: t.pop("state.density.dequantise.noise"), r"lacks density\.dequantise\.noise"),
        (lambda t: t.pop("calibration.scores"), "do not belong together"),
        (lambda t: t.update({"calibration.scores": t["calibration.scores"].float()}), "no row of float64"),
        (lambda t: t["calibration.scores"].fill_(float("inf")), "not finite"),
        (lambda t: t["calibration.scores"].fill_(float("nan")), "NaN"),
    ],
)
def test_forged_tensors_are_refused_by_name(saved, tmp_path, change, message):
    target = forge(saved, tmp_path / "forged.safetensors", lambda _, tensors: change(tensors))
    with pytest.raises(ValueError, match=message) as caught:
        dracones.load(target)
    assert str(target) in str(caught.value)


def test_damage_is_seen_unless_one_is_impatient(saved, tmp_path):
    data = bytearray(saved.read_bytes())
    # The lowest bit of a weight: what nothing but a digest can see.
    length = int.from_bytes(data[:8], "little")
    tensors = json.loads(data[8 : 8 + length])
    begins = [t["data_offsets"][0] for n, t in tensors.items() if n.startswith("state.") and t["dtype"] == "F32"]
    data[8 + length + begins[0]] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged\.safetensors was altered .*: the digest of its tensors differs"):
        dracones.load(tmp_path / "damaged.safetensors")
    assert dracones.load(tmp_path / "damaged.safetensors", verify=False).is_fitted


def test_options_cannot_be_overridden_at_load(saved):
    with pytest.raises(ValueError, match="precision: glow is fixed as it was fitted"):
        dracones.load(saved, precision="bf16")


def test_loaded_detectors_hold_no_hollow_tensor_and_can_be_fitted_again(saved):
    detector = dracones.load(saved)
    tensors = [*detector.method.parameters(), *detector.method.buffers()]
    assert not any(tensor.is_meta for tensor in tensors)
    assert all(parameter.requires_grad for parameter in detector.method.parameters())
    assert detector.fit(images()).threshold is not None


def test_what_could_not_be_read_is_not_written(saved, tmp_path):
    from dataclasses import replace

    detector = dracones.load(saved)
    detector.know(replace(detector.record, threshold=float("nan")))
    with pytest.raises(ValueError, match="threshold"):
        detector.save(tmp_path / "never.safetensors")
    assert not list(tmp_path.iterdir())


MEASURE = """
import resource, sys, dracones
dracones.load(sys.argv[1])  # what is imported and warmed up counts for nothing
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    dracones.load(sys.argv[2])
except ValueError as error:
    print(error, file=sys.stderr)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def growth_while_loading(small, path):
    done = subprocess.run([sys.executable, "-c", MEASURE, str(small), str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout), done.stderr


def test_loading_takes_about_the_files_size(tmp_path):
    small = dracones.create("patchcore", memory_share=0.02, false_alarm_rate=0.2, **SMALL).fit(normals(30))
    path = small.save(tmp_path / "small.safetensors")
    large = forge(path, tmp_path / "large.safetensors", lambda _, t: t.update(_enlarged(t, 120 * 1024**2)))
    size = large.stat().st_size
    assert size > 120e6
    grown, _ = growth_while_loading(path, large)
    assert grown < 1.2 * size


def _enlarged(tensors, size):
    memory = tensors["state.memory"]
    return {"state.memory": torch.randn(size // 4 // memory.shape[1], memory.shape[1])}


@pytest.mark.parametrize(
    ("density", "message"),
    [({"hidden": 20_000, "steps": 1}, "asks for more than"), ({"hidden": 4, "steps": 100_000}, "asks for more than")],
)
def test_a_small_file_that_asks_for_gigabytes_gets_none(saved, tmp_path, density, message):
    target = forge(saved, tmp_path / "giant.safetensors", lambda header, _: header["config"].update(density=density))
    grown, said = growth_while_loading(saved, target)
    assert message in said
    assert grown < 100e6


def test_forged_places_are_tried_before_the_detector_is_handed_out(saved, tmp_path):
    """Numbers that point into other tensors: which channels are kept, in which order."""

    def astray(_header, tensors):
        order = next(name for name in tensors if name.endswith("row_order") and tensors[name].numel() > 1)
        tensors[order] = tensors[order] + 1000

    target = forge(saved, tmp_path / "astray.safetensors", astray)
    with pytest.raises(ValueError, match=r"astray\.safetensors: its tensors do not fit one another"):
        dracones.load(target)


def test_a_row_that_is_broadcast_against_one_image_is_refused(tiny, tmp_path):
    guard = dracones.create("vim", classifier=tiny.TinyNet()).fit(tiny.images(60))
    path = guard.save(tmp_path / "vim.safetensors")

    def stood_up(_header, tensors):
        tensors["state.origin"] = tensors["state.origin"].reshape(-1, 1)

    target = forge(path, tmp_path / "stood.safetensors", stood_up)
    with pytest.raises(ValueError, match=r"stood\.safetensors: its tensors do not fit one another"):
        dracones.load(target, classifier=tiny.TinyNet())


def test_backbones_that_compute_with_their_weights_while_they_are_made_come_back(tmp_path, monkeypatch):
    """Swin V2 copies a table from the device of its weights: fitted and saved, it could not be loaded."""
    options = {"backbone": "swinv2_tiny_window8_256", "weights": "random", "levels": (0,), "cache": False}
    images = normals(10, side=64)
    detector = dracones.create("padim", size=(64, 64), dimensions=8, **options).fit(images)
    path = detector.save(tmp_path / "swin.safetensors")
    again = dracones.load(path)
    assert again.predict(images[:2]).scores.tolist() == detector.predict(images[:2]).scores.tolist()
    monkeypatch.setattr("dracones.features.hollow._FILLED_BYTES", 1024**2)
    with pytest.raises(ValueError, match="network takes more than 1 MB and cannot be made empty"):
        dracones.load(path)
