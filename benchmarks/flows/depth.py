"""Memory of a training step against the number of couplings, with standard and with constant memory.

    python benchmarks/flows/depth.py [--depths 8 16 32 64]

A Glow level of the given number of steps (64 hidden channels, batches of 64 images of 1×28×28), each in a process of
its own with one thread: how far the process grew during a training step, its speed, and how far the gradients of the
constant-memory run are from the ordinary ones. Writes depth.json and depth.md beside this file.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from contestants import BATCH, HIDDEN, measure
from provenance import footer, provenance

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


def gradient_error(depth: int, kernels: tuple[int, ...]) -> float:
    """Largest relative difference of any parameter's gradient, float32."""
    x = torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    gradients = []
    for memory in ("standard", "constant"):
        flow = glow(depth, memory, kernels)
        gradients.append(torch.autograd.grad(-flow.log_prob(x).mean(), list(flow.parameters())))
    pairs = zip(*gradients, strict=True)
    return max(float(torch.linalg.norm(a - b) / torch.linalg.norm(a).clamp_min(1e-30)) for a, b in pairs)


def child(depth: int, memory: str, kernels: tuple[int, ...]) -> None:
    torch.set_num_threads(1)
    flow = glow(depth, memory, kernels)
    result: dict[str, Any] = measure(flow.log_prob, flow, torch.rand(BATCH, 1, 28, 28), "train", repeats=3)
    if memory == "constant":
        result["gradient_error"] = gradient_error(depth, kernels)
    print(json.dumps(result))


def page(record: dict[str, Any]) -> str:
    lines = [
        "# Memory against depth",
        "",
        f"One training step (Adam) of a Glow level with {HIDDEN} hidden channels, {BATCH} images of 1×28×28,",
        "float32, one thread. MB: how far the process grew, optimiser's state included. Gradient error: the largest",
        "relative difference of any parameter's gradient from ordinary backpropagation.",
    ]
    for kernels, rows in record["results"].items():
        lines += ["", f"## Conditioner kernels {kernels}", ""]
        lines += ["| couplings | standard MB | constant MB | standard images/CPU s | constant | gradient error |"]
        lines += ["|---|---|---|---|---|---|"]
        for depth, row in rows.items():
            one, two = row["standard"], row["constant"]
            cells = [depth, f"{one['peak_memory_mb']:.0f}", f"{two['peak_memory_mb']:.0f}"]
            cells += [f"{r['images_per_cpu_second']:.0f}" for r in (one, two)]
            lines.append(f"| {' | '.join(cells)} | {two['gradient_error']:.1e} |")
    return "\n".join([*lines, "", footer(record, "depth.py")]) + "\n"


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
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    results: dict[str, Any] = {}
    for kernels in ("3,1,3", "3,3,3"):
        for depth in map(str, arguments.depths):
            for memory in ("standard", "constant"):
                command = [sys.executable, __file__, "--child", depth, memory, kernels]
                done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
                results.setdefault(kernels, {}).setdefault(depth, {})[memory] = json.loads(done.stdout)
                print(kernels, depth, memory, done.stdout.strip(), file=sys.stderr)
    record |= {"seconds": round(time.monotonic() - start), "results": results}
    (HERE / "depth.json").write_text(json.dumps(record, indent=1) + "\n")
    (HERE / "depth.md").write_text(page(record))
    print(page(record))
    return None


if __name__ == "__main__":
    main()
