"""Memory of a training step against the number of couplings, with standard and with constant memory.

    python -m benchmarks.flows.depth [--depths 8 16 32 64]

A Glow level of the given number of steps (64 hidden channels, batches of 64 images of 1×28×28), each in a process of
its own with one thread: how far the process grew during forward and backward, its speed, and how far the gradients of
the constant-memory run are from the ordinary ones. Writes depth.json and depth.md beside this file.
"""

import argparse
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.flows.contestants import BATCH, HIDDEN, resident_bytes
from benchmarks.peers import measured
from benchmarks.provenance import footer, provenance
from benchmarks.records import write
from dracones.flows import ActNorm, AffineCoupling, Chain, ConvNet, Flow, InvertibleConv1x1, Squeeze, channels

HERE = Path(__file__).parent


def glow(depth: int, memory: str, kernels: tuple[int, ...]) -> Flow:
    torch.manual_seed(0)
    layers = []
    for _ in range(depth):
        coupling = AffineCoupling(channels(4), partial(ConvNet, hidden=HIDDEN, kernels=kernels))
        layers += [ActNorm(4), InvertibleConv1x1(4), coupling]
    flow = Flow(Chain(Squeeze(), *layers, memory=memory))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    flow.initialize(torch.rand(BATCH, 1, 28, 28))
    return flow.train()


def gradient(depth: int, memory: str, kernels: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(1)).to(dtype)
    flow = glow(depth, memory, kernels).to(dtype)
    parts = torch.autograd.grad(-flow.log_prob(x).mean(), list(flow.parameters()))
    return torch.cat([part.double().flatten() for part in parts])


def difference(found: Tensor, expected: Tensor) -> float:
    return float(torch.linalg.norm(found - expected) / torch.linalg.norm(expected))


def measure(depth: int, memory: str, kernels: tuple[int, ...], repeats: int = 3) -> dict[str, float]:
    """Growth of the process in forward and backward of a full batch, and images per CPU second."""
    flow, x = glow(depth, memory, kernels), torch.rand(BATCH, 1, 28, 28)

    def step(images: Tensor) -> None:
        flow.zero_grad(set_to_none=False)
        (-flow.log_prob(images).mean()).backward()

    step(x[:1])  # libraries loaded, gradients allocated
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    step(x)
    grown = resident_bytes("VmHWM") - before
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        step(x)
        seconds.append(time.process_time() - start)
    return {"grown_mb": grown / 1e6, "images_per_cpu_second": BATCH / statistics.median(seconds)}


def child(depth: int, memory: str, kernels: tuple[int, ...]) -> None:
    torch.set_num_threads(1)
    result = measure(depth, memory, kernels)
    if memory == "constant":
        ordinary = gradient(depth, "standard", kernels)
        result["from_ordinary"] = difference(gradient(depth, "constant", kernels), ordinary)
        result["ordinary_from_double"] = difference(ordinary, gradient(depth, "standard", kernels, torch.float64))
    print(json.dumps(result))


def page(record: dict[str, Any]) -> str:
    lines = [
        "# Memory against depth",
        "",
        f"Forward and backward of a Glow level with {HIDDEN} hidden channels, {BATCH} images of 1×28×28, float32, one",
        "thread. MB: how far the process grew beyond parameters and their gradients. The gradients' difference is that",
        "of all parameters together, relative: constant memory from ordinary backpropagation, and for comparison",
        "ordinary backpropagation in float32 from float64.",
    ]
    for kernels, rows in record["results"].items():
        lines += ["", f"## Conditioner kernels {kernels}", ""]
        lines += ["| couplings | MB standard | constant | images/CPU s standard | constant | difference | of float32 |"]
        lines += ["|---|---|---|---|---|---|---|"]
        for depth, row in rows.items():
            one, two = row["standard"], row["constant"]
            cells = [depth, *(f"{r['grown_mb']:.0f}" for r in (one, two))]
            cells += [f"{r['images_per_cpu_second']:.0f}" for r in (one, two)]
            cells += [f"{two[key]:.1e}" for key in ("from_ordinary", "ordinary_from_double")]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", footer(record, "flows/depth.py")]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        depth, memory, kernels = arguments.child
        return child(int(depth), memory, tuple(map(int, kernels.split(","))))
    record: dict[str, Any] = provenance()
    start = time.monotonic()
    results: dict[str, Any] = {}
    for kernels in ("3,1,3", "3,3,3"):
        for depth in map(str, arguments.depths):
            for memory in ("standard", "constant"):
                command = [sys.executable, "-m", "benchmarks.flows.depth", "--child", depth, memory, kernels]
                results.setdefault(kernels, {}).setdefault(depth, {})[memory] = found = measured(command)
                print(kernels, depth, memory, found, file=sys.stderr)
    record |= {"seconds": round(time.monotonic() - start), "results": results}
    write(HERE / "depth.json", record)
    (HERE / "depth.md").write_text(page(record))
    print(page(record))
    return None


if __name__ == "__main__":
    main()
