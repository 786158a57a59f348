"""Files of each format that was ever released load, and score what they scored.

`python tests/golden/test_golden.py` writes the file of the present format and its scores: once a format, never again.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import dracones
from dracones.detectors import verify
from dracones.files.storage import FORMAT

HERE = Path(__file__).parent


def images():
    """By formula, so that they are the same everywhere."""
    pixel = torch.arange(6 * 64, dtype=torch.float64).view(6, 1, 8, 8)
    return ((torch.sin(pixel * 0.37) * 0.5 + 0.5) * 255).round().float() / 255


@pytest.mark.parametrize("path", sorted(HERE.glob("*.safetensors")), ids=lambda path: path.stem)
def test_a_file_of_every_format_loads_and_scores_as_it_did(path):
    told = json.loads(path.with_suffix(".json").read_text())
    detector = dracones.load(path)
    seen = detector.predict(images())
    np.testing.assert_allclose(seen.scores, told["scores"], rtol=1e-4)
    np.testing.assert_allclose(seen.p_values, told["p_values"], atol=0.06)
    assert detector.provenance["digest"] == told["digest"]
    assert verify(path).passed
    assert path.stat().st_size < 100_000


def test_a_file_of_the_first_release_is_refused_with_the_way_out():
    path = HERE / "refused" / "format1.safetensors"  # a glow that 0.1.0 fitted and wrote
    with pytest.raises(ValueError, match=r"format1.*written by dracones 0\.1\.0: fit again, or install that version"):
        dracones.load(path)


def test_the_present_format_has_its_file():
    assert (HERE / f"format{FORMAT}.safetensors").is_file()


def _write():
    data = (torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
    options = {"density": {"hidden": 4, "steps": 1}, "rule": "typicality", "epochs": 1, "false_alarm_rate": 0.2}
    detector = dracones.create("glow", **options).fit(data)
    path = detector.save(HERE / f"format{FORMAT}.safetensors")
    seen = detector.predict(images())
    told = {"digest": detector.provenance["digest"], "scores": seen.scores.tolist(), "p_values": seen.p_values.tolist()}
    path.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    _write()
