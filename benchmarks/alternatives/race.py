"""What the library does by its own hand, beside what a library it depends on offers: why the code is there.

    python -m benchmarks.alternatives.race [--parts blur mixing memory matlab] [--rounds 9] [--files 3000]

`blur`: heat maps, beside torchvision's `gaussian_blur`. `mixing`: 1×1 convolutions of a flow as one product an image,
beside `conv2d`. `memory`: a FastFlow step by parts of the batch, beside ordinary backpropagation, each in a process of
its own. `matlab`: how many damaged `.mat` files end the process that reads them. One thread, CPU seconds, medians of
rounds in which both sides take turns. Parts that are not asked for keep their last result. Writes results.json and
README.md.
"""

import argparse
import io
import os
import random
import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.peers import measured
from benchmarks.provenance import provenance
from benchmarks.records import read, write

HERE = Path(__file__).parent
LEVELS = ((64, 64), (128, 32), (256, 16))  # channels and side of ResNet-18's first three levels at 256 pixels
MODULE = "benchmarks.alternatives.race"


def in_turns(sides: dict[str, Callable[[], object]], rounds: int, repeats: int) -> dict[str, float]:
    """Median CPU milliseconds a call of each side, after one call that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for each in range(rounds + 1):
        for name, call in sides.items():
            started = time.process_time()
            for _ in range(repeats):
                call()
            if each:
                times[name].append((time.process_time() - started) / repeats * 1e3)
    return {name: statistics.median(found) for name, found in times.items()}


def blur(rounds: int) -> list[dict[str, Any]]:
    """Eight square maps, by side and sigma; torchvision gets the same kernel."""
    from torchvision.transforms.v2.functional import gaussian_blur

    from dracones.methods.heatmap import blur as ours

    rows = []
    for side, sigma in ((256, 4.0), (128, 4.0), (64, 4.0), (256, 2.0)):
        heat, width = torch.rand(8, side, side, generator=torch.Generator().manual_seed(0)), 8 * round(sigma) + 1

        def theirs(heat: torch.Tensor = heat, width: int = width, sigma: float = sigma) -> torch.Tensor:
            return gaussian_blur(heat[:, None], [width, width], [sigma, sigma])[:, 0]

        def own(heat: torch.Tensor = heat, sigma: float = sigma) -> torch.Tensor:
            return ours(heat, sigma)

        apart = (own() - theirs()).abs().max().item()
        times = in_turns({"own": own, "other": theirs}, rounds, 3)
        rows.append({"side": side, "sigma": sigma, **times, "apart": apart})
    return rows


def mixing(rounds: int) -> list[dict[str, Any]]:
    """64 maps mixed by a matrix, by channels and side."""
    rows = []
    for channels, side in ((4, 14), (12, 16), (48, 8), (128, 32)):
        x = torch.rand(64, channels, side, side, generator=torch.Generator().manual_seed(0))
        weight = torch.linalg.qr(torch.randn(channels, channels, generator=torch.Generator().manual_seed(1)))[0]

        def own(x: torch.Tensor = x, weight: torch.Tensor = weight) -> torch.Tensor:
            return torch.bmm(weight.expand(x.shape[0], *weight.shape), x.flatten(2)).view(x.shape)

        def theirs(x: torch.Tensor = x, weight: torch.Tensor = weight) -> torch.Tensor:
            return F.conv2d(x, weight[:, :, None, None])

        apart = (own() - theirs()).abs().max().item()
        with torch.no_grad():
            times = in_turns({"own": own, "other": theirs}, rounds, 20)
        rows.append({"channels": channels, "side": side, **times, "apart": apart})
    return rows


def memory(batches: tuple[int, ...] = (8, 32)) -> list[dict[str, Any]]:
    """Peak of a process that takes one step of FastFlow's flows on random maps."""

    def peak(batch: int, way: str) -> float:
        return float(measured([sys.executable, "-m", MODULE, "--step", str(batch), way])["peak_mb"])

    return [{"batch": batch, "own": peak(batch, "own"), "other": peak(batch, "other")} for batch in batches]


def step(batch: int, way: str) -> dict[str, float]:
    """One step in this process; the most memory that it held."""
    from dracones.methods.feature_flows.fastflow import FastFlowConfig, MapFlow

    torch.set_num_threads(1)
    config = FastFlowConfig(normalisation="image")
    flows = [MapFlow(width, config, torch.Generator().manual_seed(0)) for width, _ in LEVELS]
    maps = [torch.rand(batch, width, side, side) for width, side in LEVELS]
    losses = [flow.training_loss(x) if way == "own" else flow.loss(x) for flow, x in zip(flows, maps, strict=True)]
    torch.stack(losses).sum().backward()
    return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def matlab(files: int) -> dict[str, Any]:
    """Damaged files (1 to 4 bytes changed) whose reader is ended by a signal, each read in a fork of its own."""
    import scipy
    from scipy.io import loadmat, savemat

    from dracones.images.formats.matlab import read_matlab_arrays
    from dracones.images.limits import Limits

    whole = io.BytesIO()
    savemat(whole, {"X": np.zeros((4, 4, 3, 5), np.uint8), "y": np.ones((5, 1), np.uint8)})
    found: dict[str, Any] = {"files": files, "scipy": scipy.__version__}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged.mat"
        readers: dict[str, Callable[[], object]] = {
            "own": lambda: read_matlab_arrays(path, Limits()),
            "other": lambda: loadmat(path),
        }
        for name, reader in readers.items():
            found[name] = 0
            for seed in range(files):
                path.write_bytes(damaged(whole.getvalue(), seed))
                found[name] += ended_by_a_signal(reader)
    return found


def damaged(content: bytes, seed: int) -> bytes:
    """The content with a few bytes behind the header drawn anew."""
    chance, changed = random.Random(seed), bytearray(content)
    for _ in range(chance.randint(1, 4)):
        changed[chance.randrange(128, len(changed))] = chance.randrange(256)
    return bytes(changed)


def ended_by_a_signal(call: Callable[[], object]) -> bool:
    """Whether a fork that makes the call dies of it, whatever it raises."""
    child = os.fork()
    if child == 0:
        try:
            warnings.simplefilter("ignore")
            call()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def page(record: dict[str, Any]) -> str:
    """README.md."""
    lines = [
        "# What is written by hand, and what it is measured against",
        "",
        f"Made by `python -m {MODULE}`. One thread, medians of CPU milliseconds; *apart* is the largest difference.",
    ]
    sections: dict[str, tuple[str, tuple[str, ...]]] = {
        "blur": ("Blur of eight heat maps, beside torchvision's `gaussian_blur`", ("side", "sigma")),
        "mixing": ("Channels of 64 maps mixed by one product an image, beside `conv2d`", ("channels", "side")),
    }
    for part, (title, keys) in sections.items():
        lines += ["", f"## {title}", "", f"| {' | '.join(keys)} | own, ms | other, ms | other / own | apart |"]
        lines += ["|" + "---|" * (len(keys) + 4)]
        for row in record[part]["rows"]:
            cells = [f"{row[key]:g}" for key in keys] + [f"{row['own']:.3g}", f"{row['other']:.3g}"]
            lines.append(f"| {' | '.join(cells)} | {row['other'] / row['own']:.1f} | {row['apart']:.0e} |")
        lines += ["", origin(record[part])]
    lines += [
        *("", "## Memory of a step of FastFlow, by parts of the batch and by ordinary backpropagation", ""),
        *("Three levels of ResNet-18 at 256 pixels, float32; peak of the process, its imports too.", ""),
        *("| batch | by parts, MB | ordinary, MB |", "|---|---|---|"),
        *(f"| {row['batch']} | {row['own']:,.0f} | {row['other']:,.0f} |" for row in record["memory"]["rows"]),
        *("", origin(record["memory"]), "", "## Damaged `.mat` files", ""),
    ]
    found = record["matlab"]
    lines += [
        f"Of {found['files']:,} files of SVHN's kind with one to four bytes changed, {found['other']} end the process "
        f"that reads them by scipy {found['scipy']}'s `loadmat`, and {found['own']} by this library's reader.",
        *("", origin(found)),
    ]
    return "\n".join(lines) + "\n"


def origin(found: dict[str, Any]) -> str:
    """Where the figures of a part come from."""
    return f"Commit {found['commit'][:10]}, torch {found['torch']}, {found['machine']}, {found['date']}."


def main() -> dict[str, float] | None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["blur", "mixing", "memory", "matlab"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        return step(int(arguments.step[0]), arguments.step[1])
    torch.set_num_threads(1)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "blur": lambda: {"rows": blur(arguments.rounds)},
        "mixing": lambda: {"rows": mixing(arguments.rounds)},
        "memory": lambda: {"rows": memory()},
        "matlab": lambda: matlab(arguments.files),
    }
    path = HERE / "results.json"
    record: dict[str, Any] = read(path) if path.exists() else {}
    for name in arguments.parts:
        record[name] = provenance() | parts[name]()
        write(path, record)
    (HERE / "README.md").write_text(page(read(path)))
    print(page(read(path)))
    return None


if __name__ == "__main__":
    import json

    outcome = main()
    if outcome is not None:
        print(json.dumps(outcome))
