"""Files of lower precision against float32: size, CPU seconds, and what becomes of scores, maps and verdicts.

    python -m benchmarks.export.precision -o benchmarks/export/precision.json [--only METHOD ...] [--models FOLDER]

What trains is trained until its density has a shape: rounding does little to a flow that is still the identity. The
table in docs/deployment.md is made anew.
"""

import argparse
import os
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import provenance, records
from benchmarks.export.models import MODELS, fitted, images_to_measure
from benchmarks.export.page import PAGE, with_precision
from benchmarks.export.race import TIMED, seconds
from dracones import runtime
from dracones.detectors import Detector
from dracones.export import export
from dracones.runtime import Precision

EPOCHS = {"fastflow": 25, "glow, likelihood": 40, "padim": None, "patchcore": None}
LOWER: tuple[Precision, ...] = ("fp16", "int8")


def entry(detector: Detector, images: np.ndarray, folder: Path) -> dict[str, Any]:
    """One method's figures in float32 and below."""
    whole = export(detector, folder / "float32.onnx").path
    line = runtime.load(whole)
    row: dict[str, Any] = {"megabytes": whole.stat().st_size / 1e6}
    for precision in LOWER:
        try:
            made = export(detector, folder / f"{precision}.onnx", precision=precision, measure=images)
        except ValueError as error:
            row[precision] = {"refused": str(error)}
            continue
        assert made.change is not None
        lower = runtime.load(made.path)
        found: dict[str, Any] = {"megabytes": made.path.stat().st_size / 1e6, "change": made.change.to_json()}
        found |= {key: lower.facts[key] for key in ("tolerance", "map_tolerance") if key in lower.facts}
        for count in TIMED:
            first, second = seconds(partial(line.answer, images[:count]), partial(lower.answer, images[:count]))
            found |= {f"float32_ms_{count}": 1e3 * first, f"ms_{count}": 1e3 * second, f"speed_{count}": first / second}
        row[precision] = found
    return row


def main() -> None:
    """Run what is named, write the record and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(EPOCHS), choices=list(EPOCHS))
    parser.add_argument("--models", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    rows: dict[str, Any] = records.read(arguments.output)["rows"] if arguments.output.exists() else {}
    for name in arguments.only:
        detector = fitted(name, arguments.models, epochs=EPOCHS[name])
        with tempfile.TemporaryDirectory() as folder:
            row = entry(detector, images_to_measure(MODELS[name].family), Path(folder))
        rows[name] = {**row, "commit": provenance.commit()}
        print(name, rows[name], flush=True)
        whole = {**provenance.provenance(), "processor": processor(), "rows": dict(sorted(rows.items()))}
        records.write(arguments.output, whole, digits=3)
    PAGE.write_text(with_precision(PAGE.read_text(), records.read(arguments.output)))


def processor() -> dict[str, bool]:
    """Whether it multiplies 8-bit numbers in one step, on which the speed of int8 depends."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text().split() if info.exists() else []
    return {"vnni": "avx512_vnni" in flags or "avx_vnni" in flags}


if __name__ == "__main__":
    main()
