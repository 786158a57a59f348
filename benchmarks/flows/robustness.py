"""Does training ever reach NaN? 32 couplings, large inputs, one constant channel, learning rate 1e-2, 200 steps, 50 seeds.

    python benchmarks/flows/robustness.py [--seeds 50] [--steps 200] [--couplings 32]

Each seed draws a flow and a data set of its own: channels of scale 1 to `largest`, far from zero, one of them constant. After
every step loss, gradients and parameters must be finite; where they are not, the run stops and says which layer of the flow
was the first to fail. At the end the flow must invert what it encodes. Writes robustness.json and robustness.md beside
this file.
"""

import argparse
import json
import math
import os
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dracones.flows import (
    MLP,
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Bijection,
    Chain,
    ConvNet,
    Flow,
    InvertibleConv1x1,
    Permutation,
    channels,
    checkerboard,
)

HERE = Path(__file__).parent


def glow(couplings: int) -> Flow:
    """Maps of 4 channels: ActNorm, 1×1 convolution, affine coupling (tanh)."""
    steps: list[Bijection] = []
    for _ in range(couplings):
        steps += [ActNorm(4), InvertibleConv1x1(4), AffineCoupling(channels(4), partial(ConvNet, hidden=16))]
    return Flow(Chain(*steps), shape=(4, 4, 4))


def glow_plain(couplings: int) -> Flow:
    """As glow, with a plain 1×1 matrix and Glow's own sigmoid scale."""
    net = partial(ConvNet, hidden=16)
    steps: list[Bijection] = []
    for _ in range(couplings):
        steps += [ActNorm(4), InvertibleConv1x1(4, lu=False), AffineCoupling(channels(4), net, scale="sigmoid")]
    return Flow(Chain(*steps), shape=(4, 4, 4))


def checkerboards(couplings: int) -> Flow:
    """Checkerboard couplings, affine (atan) and additive in turn, after one ActNorm."""
    net = partial(ConvNet, hidden=16)
    steps: list[Bijection] = [ActNorm(4)]
    for index in range(couplings):
        mask = checkerboard((4, 4, 4), reverse=index % 2 == 1)
        steps.append(AdditiveCoupling(mask, net) if index % 4 == 3 else AffineCoupling(mask, net, scale="atan"))
    return Flow(Chain(*steps), shape=(4, 4, 4))


def vectors_unnormalised(couplings: int) -> Flow:
    """Vectors without any ActNorm: the couplings see the large values as they are."""
    steps: list[Bijection] = []
    for index in range(couplings):
        coupling = AffineCoupling(channels(8), partial(MLP, hidden=32), scale="atan")
        steps += [coupling, Permutation.random(8, torch.Generator().manual_seed(index))]
    return Flow(Chain(*steps), shape=(8,))


FLOWS: dict[str, tuple[Callable[[int], Flow], float]] = {
    "glow": (glow, 1e6),
    "glow, plain matrix, sigmoid": (glow_plain, 1e6),
    "checkerboards": (checkerboards, 1e6),
    "vectors, unnormalised": (vectors_unnormalised, 1e3),
}


def batches(shape: tuple[int, ...], largest: float, seed: int) -> Callable[[], Tensor]:
    """A source of batches: channels of very different scale and offset, the last one constant."""
    generator = torch.Generator().manual_seed(seed)
    wide = (shape[0], *(1 for _ in shape[1:]))
    scale = 10 ** (torch.rand(wide, generator=generator) * math.log10(largest))
    offset = scale * torch.randn(wide, generator=generator)

    def draw() -> Tensor:
        x = torch.randn(32, *shape, generator=generator) * scale + offset
        x[:, -1] = offset[-1]
        return x

    return draw


def train(flow: Flow, draw: Callable[[], Tensor], steps: int) -> str | None:
    """Train with Adam at 1e-2; None if everything stays finite, else where it first was not."""
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for step in range(steps):
        x = draw()
        optimiser.zero_grad()
        loss = -flow.log_prob(x).mean()
        loss.backward()
        finite = bool(torch.isfinite(loss)) and all(
            bool(torch.isfinite(p.grad).all()) for p in flow.parameters() if p.grad is not None
        )
        if not finite:
            return f"step {step}: {flow.first_non_finite(x) or 'gradient alone'}"
        optimiser.step()
    x = draw()
    place = flow.first_non_finite(x)
    return None if place is None else f"step {steps}: {place}"


@torch.no_grad()
def round_trip(flow: Flow, x: Tensor) -> float:
    """Largest error of decode(encode(x)), relative to each channel's largest value."""
    latents, _ = flow.eval().encode(x)
    error = (flow.decode(latents) - x).abs().transpose(0, 1).flatten(1).amax(1)
    return float((error / x.abs().transpose(0, 1).flatten(1).amax(1)).max())


def run(name: str, seeds: int, couplings: int, steps: int) -> dict[str, Any]:
    build, largest = FLOWS[name]
    failures, errors = [], []
    start = time.process_time()
    for seed in range(seeds):
        torch.manual_seed(seed)
        flow = build(couplings)
        draw = batches(flow.shape or (), largest, seed)
        place = train(flow, draw, steps)
        if place is None:
            errors.append(round_trip(flow, draw()))
        else:
            failures.append({"seed": seed, "place": place})
        print(f"{name}, seed {seed}: {'finite' if place is None else place}", flush=True)
    result: dict[str, Any] = {"what": (build.__doc__ or "").strip(), "largest_scale": largest, "seeds": seeds}
    result |= {"finite": seeds - len(failures), "stopped": failures, "cpu_seconds": round(time.process_time() - start)}
    if errors:
        result |= {"worst_round_trip": max(errors), "median_round_trip": sorted(errors)[len(errors) // 2]}
    return result


def page(record: dict[str, Any]) -> str:
    lines = [
        "# Robustness of training",
        "",
        f"{record['couplings']} couplings, {record['steps']} steps of Adam at 1e-2 in float32, batches of 32; channel scales from 1 to",
        "the largest given, one channel constant. A run is finite if loss, gradients and parameters are after every step.",
        "",
        "| flow | largest scale | finite | stopped, naming the layer | worst round-trip error |",
        "|---|---|---|---|---|",
    ]
    for name, result in record["results"].items():
        worst = f"{result['worst_round_trip']:.1e}" if "worst_round_trip" in result else "–"
        lines.append(
            f"| {name} | {result['largest_scale']:.0e} | {result['finite']} of {result['seeds']} | {len(result['stopped'])} | {worst} |"
        )
    lines += ["", f"Commit {record['commit']}, {record['machine']}, torch {record['torch']}, {record['date']}, "]
    lines[-1] += f"{record['seconds'] / 60:.0f} minutes. Made by `benchmarks/flows/robustness.py`."
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--couplings", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE, check=True
    ).stdout.strip()
    start = time.monotonic()
    results = {name: run(name, arguments.seeds, arguments.couplings, arguments.steps) for name in FLOWS}
    cpu = Path("/proc/cpuinfo")
    models = [line.split(":")[1].strip() for line in cpu.read_text().splitlines() if "model name" in line]
    record = {
        "commit": commit,
        "machine": f"{models[0]}, {os.cpu_count()} cores, one thread used",
        "torch": torch.__version__,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": round(time.monotonic() - start),
        "couplings": arguments.couplings,
        "steps": arguments.steps,
        "results": results,
    }
    (HERE / "robustness.json").write_text(json.dumps(record, indent=1) + "\n")
    (HERE / "robustness.md").write_text(page(record))
    print(page(record))


if __name__ == "__main__":
    main()
