"""`dracones explain` from the command line."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import dracones
from dracones.cli.explain import named_sets
from dracones.cli.main import app


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A fitted model and two sets of images on disk."""
    folder = tmp_path_factory.mktemp("explain")
    generator = torch.Generator().manual_seed(0)
    normal = torch.randint(0, 256, (60, 8, 8), generator=generator)
    np.save(folder / "normal.npy", normal.to(torch.uint8).numpy())
    np.save(folder / "gray.npy", np.full((30, 8, 8), 128, np.uint8))
    model = dracones.create("glow", rule="likelihood", density={"steps": 1, "hidden": 4}, epochs=1)
    model.fit(normal[:, None].float() / 255, device="cpu").save(folder / "glow.safetensors")
    return folder


def run(*arguments):
    return CliRunner().invoke(app, ["explain", *map(str, arguments)])


def test_writes_the_page_and_every_number_beside_it(files):
    skip = [part for name in ("couplings", "latents", "checks", "second order") for part in ("--skip", name)]
    result = run(
        files / "glow.safetensors", "--normal", files / "normal.npy", "--other", f"gray={files / 'gray.npy'}",
        "-o", files / "why.html", "--count", 20, *skip, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout.splitlines()[-1])
    numbers = json.loads((files / "why.json").read_text())
    assert printed["verdict"] == numbers["verdict"]
    assert numbers["images"] == {"normal": 20, "gray": 20}
    page = (files / "why.html").read_text()
    assert numbers["verdict"]["text"].split(":")[0] in page


def test_sets_are_named_and_told_apart(files):
    assert named_sets(["a=x.npy", "folder/b.npy"]) == {"a": "x.npy", "b": "folder/b.npy"}
    with pytest.raises(ValueError, match="two sets 'a'"):
        named_sets(["a=x", "a=y"])
    with pytest.raises(ValueError, match="takes NAME=DATA, got 'a='"):
        named_sets(["a="])
    assert run(files / "glow.safetensors", "--normal", files / "normal.npy").exit_code == 2
