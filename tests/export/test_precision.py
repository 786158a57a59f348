"""A file of lower precision is written with what that changed, says it to whoever loads it, and checks itself."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

from dracones import runtime
from dracones.cli.main import app
from dracones.detectors.familiar import digests
from dracones.export import export, lower
from dracones.images import open_images
from dracones.runtime.agreement import TOLERANCE, map_difference
from dracones.runtime.detector import unproven
from exported_line import pictures

pytest.importorskip("onnxruntime")
LOWER = ("fp16", "int8")


@pytest.fixture(scope="module")
def measure():
    return pictures(24, 80, 72, seed=3)


@pytest.fixture(scope="module")
def made(padim, measure, tmp_path_factory):
    """The files of each lower precision: one by the command line, one by the detector."""
    folder = tmp_path_factory.mktemp("precision")
    padim.save(folder / "model.safetensors")
    np.save(folder / "measure.npy", measure)
    asked = ["export", folder / "model.safetensors", "-o", folder / "fp16.onnx", "--precision", "fp16", "--measure"]
    done = CliRunner().invoke(app, [*map(str, asked), str(folder / "measure.npy"), "--json"])
    (folder / "said.json").write_text(done.stdout)
    return {"fp16": folder / "fp16.onnx", "int8": padim.export(folder / "int8.onnx", precision="int8", measure=measure)}


@pytest.mark.parametrize("precision", LOWER)
def test_the_change_is_what_scoring_both_files_shows(padim, made, measure, precision):
    line = runtime.load(made[precision])
    assert line.precision == precision
    assert repr(line) == f"ExportedDetector(padim, format 1, {precision})"
    judged = measure if precision == "fp16" else measure[1::2]
    found, expected = line.predict(judged), padim.predict(judged)
    off = np.abs(found.scores - expected.scores) / np.maximum(np.abs(expected.scores), padim.calibration.scores.std())
    maps = [map_difference(one[None], other[None]) for one, other in zip(found.maps, expected.maps, strict=True)]
    change = line.change
    assert change.images == len(judged)
    assert change.score_largest == pytest.approx(off.max(), abs=2e-5)
    assert change.score_median == pytest.approx(np.median(off), abs=2e-5)
    assert change.map_largest == pytest.approx(max(maps), abs=2e-5)
    assert change.verdicts == (found.is_anomaly != expected.is_anomaly).sum()
    assert (change.alarms_before, change.alarms_after) == (expected.is_anomaly.sum(), found.is_anomaly.sum())
    assert change.rate == padim.false_alarm_rate


def test_lower_precision_costs_what_it_says_and_no_more(made, line):
    fp16, int8 = (runtime.load(made[name]).change for name in LOWER)
    assert 1e-7 < fp16.score_largest < 1e-2 < int8.score_largest < 0.5
    assert fp16.score_noise < 1e-2 < int8.score_noise < 1
    assert all(path.stat().st_size < 0.6 * line.stat().st_size for path in made.values())


def _tables(path):
    return {each.name: numpy_helper.to_array(each) for each in onnx.load(str(path)).graph.initializer}


@pytest.mark.parametrize("precision", LOWER)
def test_calibration_and_threshold_keep_their_bits(padim, line, made, precision):
    held = {table.tobytes() for table in _tables(made[precision]).values()}
    assert padim.calibration.scores.astype(np.float32).tobytes() in held
    assert np.float32(padim.threshold).tobytes() in held
    assert runtime.load(made[precision]).facts["calibration"] == runtime.load(line).facts["calibration"]


def _above_the_network(path):
    """What the input of the first convolution is computed by: operations and what they read."""
    graph = onnx.load(str(path)).graph
    makers = {name: node for node in graph.node for name in node.output}
    first = next(node for node in graph.node if node.op_type == "Conv")
    found, ahead = set(), [first.input[0]]
    while ahead:
        node = makers.pop(ahead.pop(), None)
        if node is not None:
            ahead += node.input
            found.add((node.op_type, *node.output, *node.input))
    return {each for each in found if each[0] not in ("QuantizeLinear", "DequantizeLinear")}


@pytest.mark.parametrize("precision", LOWER)
def test_the_treatment_of_the_image_is_left_alone(line, made, precision):
    expected = _above_the_network(line)
    assert [each[0] for each in expected].count("MatMul") == 2
    assert _above_the_network(made[precision]) == expected


@pytest.mark.parametrize(("precision", "known"), [("fp16", 2**-11), ("int8", 1 / 60)])
def test_what_is_lowered_are_learnt_weights(padim, line, made, precision, known):
    before, after = _tables(line), _tables(made[precision])
    name = "pipeline.method.extractor.backbone.network.layer3.0.conv1.weight"
    weight = before[name]
    if precision == "fp16":
        found = after[f"{name}_half"].astype(np.float32)
    else:
        scale = after[f"{name}_scale"].reshape(-1, 1, 1, 1)
        found = after[f"{name}_quantized"].astype(np.float32) * scale
    assert np.abs(found - weight).max() <= known * np.abs(weight).max()
    assert np.abs(found - weight).max() > 0


def test_the_layer_that_sees_the_image_is_not_put_into_8_bits(line, made):
    name = "pipeline.method.extractor.backbone.network.conv1.weight"
    np.testing.assert_array_equal(_tables(made["int8"])[name], _tables(line)[name])


@pytest.mark.parametrize("precision", LOWER)
def test_its_check_is_of_its_own_answers(made, precision):
    line = runtime.load(made[precision])
    found = line.answer(line._checks.images)
    np.testing.assert_array_equal(found["score"], line._checks.outputs["score"])
    tolerance = line.facts["tolerance"]
    assert tolerance == TOLERANCE if precision == "fp16" else TOLERANCE <= tolerance < 0.2
    off = 1 + 3 * tolerance
    line._checks.outputs["score"][:] *= off
    with pytest.raises(runtime.UnfitFileError, match="fails its own check"):
        line.prove("the file")


def test_an_8_bit_file_passes_where_nothing_is_fused(made):
    unproven(made["int8"].read_bytes(), made["int8"], fused=False).prove("in float32")


@pytest.mark.parametrize("precision", LOWER)
def test_an_edited_file_is_refused(made, tmp_path, precision):
    data = bytearray(made[precision].read_bytes())
    data[len(data) // 2] ^= 1
    edited = tmp_path / "edited.onnx"
    edited.write_bytes(data)
    with pytest.raises(runtime.UnfitFileError, match="digest"):
        runtime.load(edited)


def test_without_images_to_measure_on_nothing_is_written(padim, tmp_path, measure):
    path = tmp_path / "line.onnx"
    for precision in LOWER:
        with pytest.raises(ValueError, match=f"{precision} changes scores.*measure"):
            padim.export(path, precision=precision)
    with pytest.raises(ValueError, match="nothing changes that could be measured"):
        padim.export(path, measure=measure)
    with pytest.raises(ValueError, match=r"float32, fp16, int8; got 'bf16'"):
        padim.export(path, precision="bf16", measure=measure)
    with pytest.raises(ValueError, match="8 images at least, and 7 of"):
        padim.export(path, precision="fp16", measure=measure[:7])
    learnt = pictures(40, 80, 72)
    with pytest.raises(ValueError, match="learnt from"):
        padim.export(path, precision="fp16", measure=learnt[padim.fitted().learnt.holds(digests(open_images(learnt)))])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "precision"), [("line.pt2", "fp16"), ("line.pt2", "int8"), ("line.xml", "int8")])
def test_formats_without_such_a_precision_say_so(padim, tmp_path, measure, name, precision):
    with pytest.raises(ValueError, match=rf"padim cannot be exported to \{name[4:]} in {precision}: .*\.onnx"):
        padim.export(tmp_path / name, image_size=(80, 72), precision=precision, measure=measure)


def test_openvino_takes_halves(padim, line, tmp_path, measure):
    pytest.importorskip("openvino")
    made = export(padim, tmp_path / "half.xml", image_size=(80, 72), precision="fp16", measure=measure)
    half = runtime.load(made.path)
    assert half.precision == "fp16"
    assert half.change == made.change
    found, expected = half.predict(measure).scores, padim.predict(measure).scores
    assert 0 < np.abs(found / expected - 1).max() < 1e-2
    assert made.path.with_suffix(".bin").stat().st_size < 0.6 * line.stat().st_size


def test_scores_of_which_nothing_is_left_are_refused_by_name(padim, line, made, measure, monkeypatch):
    asked = lower.Lower(padim, "int8", None, open_images(measure))
    files = [runtime.load(path) for path in (line, made["int8"], made["int8"])]
    change, facts = asked.measured(*files, files[0]._checks.images)
    assert facts["precision"] == {"name": "int8", "change": change.to_json()}
    monkeypatch.setattr(lower, "_USELESS", change.score_noise / 2)
    with pytest.raises(ValueError, match=r"padim cannot be exported in int8: its scores change by .* of their spread"):
        asked.measured(*files, files[0]._checks.images)


def test_the_command_line_tells_it(made):
    told = json.loads((made["fp16"].parent / "said.json").read_text())
    assert told["precision"] == "fp16"
    assert runtime.Change(**told["change"]) == runtime.load(made["fp16"]).change
    shown = CliRunner().invoke(app, ["score", str(made["fp16"]), str(made["fp16"].parent / "measure.npy")]).stderr
    assert "the file is in fp16" in shown
    assert "of 24 verdicts changed" in shown


def test_the_command_line_asks_for_images(made):
    asked = ["export", made["fp16"].parent / "model.safetensors", "-o", "line.onnx", "--precision", "int8"]
    assert "--measure DATA" in str(CliRunner().invoke(app, [*map(str, asked)]).exception)
