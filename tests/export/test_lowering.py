"""A program that is lowered computes what it did, and the converter does not trace it again."""

import numpy as np
import pytest
import torch
from torch import nn

from dracones.export.deployed import Input
from dracones.export.graph import onnx_of, program_of
from dracones.export.lowering import lower, taken_as_it_is

pytest.importorskip("onnx")
TAKES = Input(3, None, True)


class Treated(nn.Module):
    """What pipelines are made of: bytes, types, a division in place, a difference, a transposed matrix, BatchNorm."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3).eval()
        self.matrix = nn.Parameter(torch.randn(5, 3))
        self.norm.running_mean.copy_(torch.tensor([0.1, 0.2, 0.3]))

    def forward(self, images):
        values = self.norm(images.float().div_(255)).to(torch.float64)
        means = (1 - values).mean(dim=(2, 3)).to(torch.float32).to("cpu")
        return means @ self.matrix.T


@pytest.fixture
def images():
    return torch.randint(0, 256, (3, 3, 9, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_what_is_lowered_says_the_same(images):
    module = Treated()
    program = program_of(module, (images,), TAKES)
    lower(program)
    found = program.module()(images)
    torch.testing.assert_close(found, module(images), rtol=0, atol=1e-7)
    names = {str(node.target) for node in program.graph.nodes}
    assert not {name for name in names if "aten.to." in name or "div_" in name or "rsub" in name}


def test_it_is_converted_without_another_trace(images, monkeypatch):
    module = Treated()
    program = program_of(module, (images,), TAKES)

    def traced_again(*_):
        raise AssertionError("decomposed")

    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", traced_again)
    model = onnx_of(program, ["image"], ["mean"])
    session = pytest.importorskip("onnxruntime").InferenceSession(model.SerializeToString())
    batch = images[:, :, :6, :7].numpy().repeat(2, axis=0)
    expected = module(torch.from_numpy(batch)).detach().numpy()
    np.testing.assert_allclose(session.run(None, {"image": batch})[0], expected, atol=1e-6)


def test_what_is_not_known_here_goes_torchs_own_way(images):
    class Rare(nn.Module):
        def forward(self, images):
            values = images.float()
            values[:, 0] = 0  # in place, of a part
            return torch.special.expit(values).mean(dim=(1, 2, 3))

    program = program_of(Rare(), (images,), TAKES)
    with pytest.raises(Exception, match="convert"), taken_as_it_is(program):
        torch.onnx.export(program, dynamo=True, verbose=False)
    session = pytest.importorskip("onnxruntime").InferenceSession(
        onnx_of(program, ["image"], ["mean"]).SerializeToString()
    )
    found = session.run(None, {"image": images.numpy()})[0]
    np.testing.assert_allclose(found, Rare()(images).numpy(), atol=1e-6)


def test_a_division_in_place_of_what_others_read_is_left_alone(images):
    class Shared(nn.Module):
        def forward(self, images):
            values = images.float()
            return values.div_(255).sum() + values.sum()

    program = program_of(Shared(), (images,), TAKES)
    lower(program)
    torch.testing.assert_close(program.module()(images), Shared()(images))
