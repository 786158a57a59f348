import os
import pickle
import signal
from multiprocessing import get_context

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dracones.training import checkpoint as checkpoint_file
from dracones.training.checkpoint import load_checkpoint, load_optimizer_state, optimizer_state, save_checkpoint


def test_round_trip_of_every_type_and_of_shared_memory(tmp_path):
    base = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    tensors = {
        "plain": base, "tied": base, "turned": base.T, "part": base[1:3], "whole": torch.tensor(3),
        "flag": torch.tensor(True), "half": base.bfloat16(), "double": base.double(), "empty": torch.zeros(0, 2),
    }  # fmt: skip
    header = {"number": 0.1 + 0.2, "words": ["é", None]}
    save_checkpoint(tmp_path / "run", tensors, header)
    read, read_header = load_checkpoint(tmp_path / "run")
    assert read_header == header
    assert read.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert torch.equal(read[key], tensor)
        assert read[key].dtype == tensor.dtype
    assert os.listdir(tmp_path) == ["run"]  # noqa: PTH208


def test_what_is_read_does_not_change_with_the_file(tmp_path):
    save_checkpoint(tmp_path / "run", {"x": torch.ones(3)}, {})
    read, _ = load_checkpoint(tmp_path / "run")
    save_checkpoint(tmp_path / "run", {"x": torch.zeros(3)}, {})
    assert read["x"].tolist() == [1, 1, 1]


def test_a_full_disk_leaves_the_last_good_file(tmp_path, monkeypatch):
    path = tmp_path / "run"
    save_checkpoint(path, {"x": torch.ones(3)}, {"at": 1})

    def full(temporary, *arguments):
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_file, "write_tensors", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, {"x": torch.zeros(3)}, {"at": 2})
    assert load_checkpoint(path)[1] == {"at": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_real_file_size_limit_leaves_the_last_good_file(tmp_path):
    """The kernel, not a stand-in, refuses the bytes: RLIMIT_FSIZE."""

    def write(path):
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            save_checkpoint(path, {"x": torch.zeros(100_000)}, {"at": 2})
        except OSError:
            os._exit(7)
        os._exit(0)

    path = tmp_path / "run"
    save_checkpoint(path, {"x": torch.ones(3)}, {"at": 1})
    child = get_context("fork").Process(target=write, args=(path,))
    child.start()
    child.join(30)
    assert child.exitcode == 7
    assert load_checkpoint(path)[1] == {"at": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_foreign_damaged_and_newer_files_are_refused(tmp_path):
    path = tmp_path / "run"
    path.write_bytes(pickle.dumps({"x": 1}))
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_checkpoint(path)
    save_file({"x": torch.ones(1)}, path)
    with pytest.raises(ValueError, match="no training checkpoint of dracones"):
        load_checkpoint(path)
    save_checkpoint(path, {"x": torch.ones(1000)}, {})
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="delete it to train anew"):
        load_checkpoint(path)
    save_file({"x": torch.ones(1)}, path, {"format": checkpoint_file.FORMAT, "version": "2", "header": "{}"})
    with pytest.raises(ValueError, match=r"newer dracones .*version 2; this one reads up to 1"):
        load_checkpoint(path)


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "Adamax", "RMSprop", "SGD"])
def test_optimizer_state_goes_on_bit_for_bit(kind):
    options = {"lr": 0.1} | ({"momentum": 0.9} if kind in ("SGD", "RMSprop") else {})
    steps = torch.randn(9, 3, 2, generator=torch.Generator().manual_seed(0))

    def walk(module, optimizer, steps):
        for step in steps:
            optimizer.zero_grad()
            (module(step) ** 2).sum().backward()
            optimizer.step()

    whole, half = nn.Linear(2, 2), nn.Linear(2, 2)
    half.load_state_dict(whole.state_dict())
    walk(whole, getattr(torch.optim, kind)(whole.parameters(), **options), steps)
    first = getattr(torch.optim, kind)(half.parameters(), **options)
    walk(half, first, steps[:4])
    tensors, numbers = optimizer_state(first)
    second = getattr(torch.optim, kind)(half.parameters(), **options)
    load_optimizer_state(second, tensors, numbers)
    walk(half, second, steps[4:])
    assert torch.equal(whole.weight, half.weight)
