"""A pair for OpenVINO that must not score says why, and so does an operation that a runtime lacks in either format."""

import re

import numpy as np
import onnx
import pytest
from PIL import Image

from dracones import runtime
from dracones.runtime.container import PLACEHOLDER
from exported_line import pictures

pytest.importorskip("openvino")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def pair(padim, tmp_path_factory):
    return padim.export(tmp_path_factory.mktemp("bad") / "line.xml", image_size=(80, 72))


def _changed(pair, folder, old, new, *, weights=None):
    """The pair with the first of one text in place of another, sealed again: whole, and not what was exported."""
    beside = pair.with_suffix(".bin").read_bytes() if weights is None else weights
    data = pair.read_bytes()
    assert old in data
    blank = re.sub(rb"sha256:[0-9a-f]{64}", PLACEHOLDER.encode(), data.replace(old, new, 1), count=1)
    path = folder / "changed.xml"
    path.write_bytes(runtime.seal(blank, beside))
    path.with_suffix(".bin").write_bytes(beside)
    return path


def test_what_is_sealed_again_unchanged_is_taken(pair, tmp_path):
    assert runtime.load(_changed(pair, tmp_path, b"<net", b"<net")).info.name == "padim"


def test_a_newer_format_is_refused(pair, tmp_path):
    name = b"&quot;format&quot;: "
    with pytest.raises(runtime.UnfitFileError, match="format 2, and this version of dracones reads up to 1"):
        runtime.load(_changed(pair, tmp_path, name + b"1", name + b"2"))


def test_a_description_of_another_hand_is_refused(pair, tmp_path):
    with pytest.raises(runtime.UnfitFileError, match="no description"):
        runtime.load(_changed(pair, tmp_path, b"<dracones value=", b"<dragons value="))


@pytest.mark.parametrize("share", [0, 0.5, 0.999])
def test_weights_that_are_cut_off_are_refused(pair, tmp_path, share):
    weights = pair.with_suffix(".bin").read_bytes()
    path = tmp_path / "cut.xml"
    path.write_bytes(pair.read_bytes())
    path.with_suffix(".bin").write_bytes(weights[: int(share * len(weights))])
    with pytest.raises(runtime.UnfitFileError, match=r"cannot be run by openvino .* cut off|digest differs"):
        runtime.load(path)


def test_weights_of_another_graph_fail_its_own_check(pair, tmp_path):
    weights = bytearray(pair.with_suffix(".bin").read_bytes())
    floats = np.frombuffer(weights, dtype=np.float32, count=9408)  # the first convolution
    floats[:] *= 1.01
    with pytest.raises(runtime.UnfitFileError, match="fails its own check"):
        runtime.load(_changed(pair, tmp_path, b"<net", b"<net", weights=bytes(weights)))


def test_images_that_the_pair_does_not_take_are_reported(pair, tmp_path):
    images = pictures(1, 80, 72, 4)[0]
    Image.fromarray(images[:, :, :3]).save(tmp_path / "good.png")
    Image.fromarray(images[:, :, 0]).save(tmp_path / "gray.png")
    Image.fromarray(pictures(1, 80, 70)[0]).save(tmp_path / "small.png")
    Image.fromarray((np.arange(80 * 72).reshape(80, 72) * 9).astype(np.uint16)).save(tmp_path / "deep.png")
    line = runtime.load(pair)
    found = line.predict(tmp_path)
    assert list(found.paths) == ["good.png", "gray.png"]
    reasons = {item.name: item.reason for item in found.errors}
    assert "8-bit" in reasons["deep.png"]
    assert "80x70 pixels where 80x72 are expected" in reasons["small.png"]
    with pytest.raises(ValueError, match="5 channels where 3 are expected"):
        line.predict(pictures(2, 80, 72, 5), strict=True)


def test_an_operation_that_openvino_lacks_is_named(pair, tmp_path):
    path = _changed(pair, tmp_path, b'type="Convolution"', b'type="Convoluted"')
    with pytest.raises(runtime.UnfitFileError, match=r"Convoluted.*lacks an operation \(update openvino\)"):
        runtime.load(path)


def test_an_operation_that_onnxruntime_lacks_is_named(line, tmp_path):
    model = onnx.load(str(line))
    next(node for node in model.graph.node if node.op_type == "Conv").op_type = "Convoluted"
    path = tmp_path / "line.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(runtime.UnfitFileError, match=r"Convoluted.*lacks an operator \(update onnxruntime\)"):
        runtime.load(path)
