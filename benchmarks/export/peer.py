"""The same photographs through anomalib's model and its exported files, and through ours: score and verdict of each.

    python -m benchmarks.export.peer -o benchmarks/export/peer.json --peer /path/to/peer/bin/python --sets FOLDER

Both fit PatchCore on the same 60 magnetic tiles at 256 px, on the same weights of ResNet-18. The photographs are the
largest of the test part, some 500 to 632 pixels wide. Scales differ between the two, so each file is held against the
model that it was exported from, and its difference is said in spreads: standard deviations of that model's scores.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import dracones
from benchmarks import provenance, records
from benchmarks.export.page import PAGE, with_peer
from benchmarks.inspection.sets import data_root, unpacked
from dracones import runtime

FITTED, VALIDATION, PHOTOGRAPHS = 60, 16, 12
SIZES = 4
"""Photographs that have a file of their own, as OpenVINO's takes one size."""

WEIGHTS = "backbones/resnet18_tv_layer123_fp16.safetensors"
Answers = list[tuple[float, bool]]


def arranged(source: Path, folder: Path) -> tuple[Path, list[Path], list[Path]]:
    """A small set in MVTec's layout, the images that calibrate, and the photographs to score: in turns, good first."""
    good = sorted((source / "train" / "good").iterdir())
    kept = good[:: len(good) // FITTED][:FITTED]
    rest = [path for path in good if path not in set(kept)]
    held = list((source / "test").rglob("*.jpg"))
    widest = sorted(held, key=lambda path: (-max(Image.open(path).size), path.name))
    sides = [[path for path in widest if (path.parent.name == "good") == normal] for normal in (True, False)]
    photographs = [path for pair in zip(*sides, strict=False) for path in pair][:PHOTOGRAPHS]
    for part, paths in (
        ("train/good", kept),
        ("test/good", sides[0][-VALIDATION:]),
        ("test/defect", sides[1][-VALIDATION:]),
    ):
        (folder / part).mkdir(parents=True)
        for path in paths:
            shutil.copy(path, folder / part / path.name)
    return folder, rest[:100], photographs


def theirs(python: Path, root: Path, photographs: list[Path], folder: Path) -> dict[str, Any]:
    """What `peer_side.py` says."""
    listed = folder / "photographs.txt"
    listed.write_text("\n".join(map(str, photographs)))
    script = Path(__file__).with_name("peer_side.py")
    command = [str(python), str(script), str(root), str(data_root() / WEIGHTS), str(listed), str(folder / "theirs")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    found: dict[str, Any] = json.loads(done.stdout.strip().split("\n")[-1])
    return found


def ours(root: Path, calibration: list[Path], photographs: list[Path], folder: Path) -> dict[str, Any]:
    """The detector's answers and its files'; OpenVINO's takes one size, so some photographs have a file each."""
    detector = dracones.create(
        "patchcore",
        backbone="resnet18",
        weights=str(data_root() / WEIGHTS),
        levels=(2, 3),
        size=(256, 256),
        channels=3,
        cache=False,
        memory_share=0.01,
        calibration_share=0.0,
    )
    detector.fit(str(root / "train" / "good"))
    detector.calibrate([str(path) for path in calibration], false_alarm_rate=0.05)
    names = [str(path) for path in photographs]
    found: dict[str, Any] = {"torch": _answers(detector.predict(names, maps=False))}
    found["onnx"] = _answers(runtime.load(detector.export(folder / "ours.onnx")).predict(names, maps=False))
    found["openvino"] = []
    for name in names[:SIZES]:
        with Image.open(name) as image:
            size = image.size[::-1]
        line = runtime.load(detector.export(folder / "ours.xml", image_size=size))
        found["openvino"] += _answers(line.predict([name], maps=False))
    return found


def _answers(prediction: Any) -> Answers:
    return list(zip(prediction.scores.tolist(), prediction.is_anomaly.tolist(), strict=True))


def against(found: dict[str, Any], kind: str) -> dict[str, Any]:
    """A file against the model that it came from."""
    if isinstance(found[kind], dict):
        return dict(found[kind])
    held = found["torch"][: len(found[kind])]
    (model, said), (file, told) = (np.array(each, dtype=np.float64).T for each in (held, found[kind]))
    spread = float(np.std([score for score, _ in found["torch"]]))
    off = np.abs(file - model)
    return {
        "largest": float(off.max()),
        "largest_in_spreads": float(off.max() / spread),
        "median_in_spreads": float(np.median(off) / spread),
        "verdicts_changed": int((said != told).sum()),
        "photographs": len(off),
    }


def main() -> None:
    """Both sides, and the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--sets", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        root, calibration, photographs = arranged(unpacked("mtd", arguments.sets), folder / "set")
        said = theirs(arguments.peer, root, photographs, folder)
        sides = {"anomalib": said["answers"]}
        sides["dracones"] = ours(root, calibration, photographs, folder)
        rows = []
        for i, path in enumerate(photographs):
            with Image.open(path) as image:
                row = {"photograph": f"{path.parent.name}/{path.name}", "size": list(image.size)}
            for side, found in sides.items():
                row[side] = {kind: each[i] for kind, each in found.items() if _has(each, i)}
            rows.append(row)
    files = {side: {kind: against(found, kind) for kind in found if kind != "torch"} for side, found in sides.items()}
    record = {
        **provenance.provenance(),
        "versions": said["versions"],
        "inputs": said["inputs"],
        "files": files,
        "rows": rows,
    }
    records.write(arguments.output, record, digits=7)
    PAGE.write_text(with_peer(PAGE.read_text(), records.read(arguments.output)))
    print(json.dumps(files, indent=1))


def _has(found: Any, place: int) -> bool:
    return isinstance(found, list) and place < len(found)


if __name__ == "__main__":
    main()
