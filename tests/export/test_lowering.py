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


def _traced_again(*_):
    raise AssertionError("decomposed")


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

    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", _traced_again)
    model = onnx_of(program, ["image"], ["mean"])
    session = pytest.importorskip("onnxruntime").InferenceSession(model.SerializeToString())
    batch = images[:, :, :6, :7].numpy().repeat(2, axis=0)
    expected = module(torch.from_numpy(batch)).detach().numpy()
    np.testing.assert_allclose(session.run(None, {"image": batch})[0], expected, atol=1e-6)


def test_an_identity_and_two_truths_have_a_form_too(images):
    class Between(nn.Module):
        def forward(self, images):
            means = images.double().mean(dim=(2, 3))
            between = ((means > 100) & (means < 130)).double()
            return between @ (2 * torch.eye(3, dtype=torch.float64)), images[:, 0, 0, 0] & 3

    program = program_of(Between(), (images,), TAKES)
    lower(program)
    wanted = Between()(images)
    assert wanted[0].unique().tolist() == [0, 2]
    for found, want in zip(program.module()(images), wanted, strict=True):
        assert torch.equal(found, want)
    names = {str(node.target) for node in program.graph.nodes}
    assert "aten.eye.default" not in names
    assert "aten.__and__.Scalar" in names, "of numbers it is another operation"


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


def test_residual_blocks_that_work_in_place_are_lowered_too(images):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
            self.norm, self.act = nn.BatchNorm2d(3).eval(), nn.ReLU(inplace=True)

        def forward(self, images):
            before = self.act(self.norm(self.first(images.float().div(255))))
            after = self.second(before)
            after += before
            return (self.act(after) + before).mean(dim=(1, 2, 3))

    module = Block()
    program = program_of(module, (images,), TAKES)
    lower(program)
    torch.testing.assert_close(program.module()(images), module(images), rtol=0, atol=1e-7)
    assert not {str(node.target) for node in program.graph.nodes} & {"aten.relu_.default", "aten.add_.Tensor"}


def test_what_is_changed_in_place_and_read_again_is_left(images):
    class Read(nn.Module):
        def forward(self, images):
            values = images.float().add(-100)
            before = values.mean(dim=(1, 2, 3))
            changed = torch.relu_(values)
            return before + changed.mean(dim=(1, 2, 3)) + values.amax(dim=(1, 2, 3))

    program = program_of(Read(), (images,), TAKES)
    lower(program)
    assert "aten.relu_.default" in {str(node.target) for node in program.graph.nodes}
    torch.testing.assert_close(program.module()(images), Read()(images))


def test_a_part_of_another_value_is_never_changed_beside_it(images):
    class Halves(nn.Module):
        def forward(self, images):
            values = images.float().add(-100)
            left, _ = values.split([4, values.shape[3] - 4], dim=3)
            torch.relu_(left)
            return values.mean(dim=(1, 2, 3))

    program = program_of(Halves(), (images,), TAKES)
    lower(program)
    torch.testing.assert_close(program.module()(images), Halves()(images))


def test_an_answer_that_is_rewritten_keeps_its_place(images, monkeypatch):
    class Casts(nn.Module):
        def forward(self, images):
            values = images.float().square().mean(dim=(1, 2, 3))
            return values.to(torch.float32), values.to(torch.float64)

    program = program_of(Casts(), (images,), TAKES)
    lower(program)
    for found, wanted in zip(program.module()(images), Casts()(images), strict=True):
        assert torch.equal(found, wanted)
    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", _traced_again)
    model = onnx_of(program, ["image"], ["single", "double"])
    session = pytest.importorskip("onnxruntime").InferenceSession(model.SerializeToString())
    single, double = session.run(None, {"image": images.numpy()})
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(single, Casts()(images)[0].numpy(), rtol=1e-6)
