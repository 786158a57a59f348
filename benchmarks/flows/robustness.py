"""Does training ever reach NaN? 32 couplings, large inputs, a constant channel, 200 steps at 1e-2, 50 seeds.

    python -m benchmarks.flows.robustness [--seeds 50] [--steps 200] [--couplings 32] [--workers 1] [--again]

Each seed draws a flow and a data set of its own: channels of scale 1 to `largest`, far from zero, one of them constant.
After every step loss and gradients must be finite, at the end all values inside the flow; where they are not, the run
stops and says which layer was the first to fail. Writes robustness.json and robustness.md beside this file.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.provenance import footer, provenance
from benchmarks.records import write
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
    "vectors, unnormalised": (vectors_unnormalised, 1e3),
    "checkerboards": (checkerboards, 1e6),
    "glow, plain matrix, sigmoid": (glow_plain, 1e6),
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
    parameters = list(flow.parameters())
    optimiser = torch.optim.Adam(parameters, lr=1e-2, fused=True)
    for step in range(steps):
        x = draw()
        optimiser.zero_grad()
        loss = -flow.log_prob(x).mean()
        loss.backward()
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not bool(torch.isfinite(loss) & torch.isfinite(torch.nn.utils.get_total_norm(gradients, torch.inf))):
            return f"step {step}: {flow.first_non_finite(x)}"
        optimiser.step()
    place = flow.first_non_finite(draw())
    return None if place is None else f"step {steps}: {place}"


@torch.no_grad()
def round_trip(flow: Flow, x: Tensor) -> float | None:
    """Largest error of decode(encode(x)), relative to each channel's largest value; None if decode overflows."""
    latents, _ = flow.eval().encode(x)
    error = (flow.decode(latents) - x).abs().transpose(0, 1).flatten(1).amax(1)
    worst = float((error / x.abs().transpose(0, 1).flatten(1).amax(1)).max())
    return worst if math.isfinite(worst) else None


def run(name: str, seed: int, couplings: int, steps: int) -> dict[str, Any]:
    """One seed: where it failed (None: nowhere), the error of the round trip, and what it cost."""
    torch.set_num_threads(1)
    build, largest = FLOWS[name]
    start = time.process_time()
    torch.manual_seed(seed)
    flow = build(couplings)
    draw = batches(flow.shape or (), largest, seed)
    place = train(flow, draw, steps)
    error = None if place else round_trip(flow, draw())
    return {"seed": seed, "place": place, "round_trip": error, "cpu_seconds": time.process_time() - start}


def summary(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    build, largest = FLOWS[name]
    errors = sorted(r["round_trip"] for r in runs if r["round_trip"] is not None)
    stopped = [{"seed": r["seed"], "place": r["place"]} for r in runs if r["place"] is not None]
    result: dict[str, Any] = {"what": (build.__doc__ or "").strip(), "largest_scale": largest, "seeds": len(runs)}
    result |= {"finite": len(runs) - len(stopped), "stopped": stopped}
    result |= {"median_round_trip": errors[len(errors) // 2] if errors else None, "round_trips": errors}
    return result | {"cpu_seconds": round(sum(r["cpu_seconds"] for r in runs))}


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The finite seeds of an earlier run together with those run again."""
    trips = sorted(old["round_trips"] + new["round_trips"])
    result = new | {"seeds": old["seeds"], "finite": old["finite"] + new["finite"], "round_trips": trips}
    result |= {"cpu_seconds": old["cpu_seconds"] + new["cpu_seconds"]}
    return result | {"median_round_trip": trips[len(trips) // 2] if trips else None}


def page(record: dict[str, Any]) -> str:
    lines = [
        "# Robustness of training",
        "",
        f"{record['couplings']} couplings, {record['steps']} steps of Adam at 1e-2 in float32, batches of 32;",
        "channel scales from 1 to the largest given, one channel constant. A run is finite if loss and gradients are",
        "after every step and all values inside the flow at the end; a run that is not stops and names the layer. The",
        "round trip is the largest error of decode(encode(x)), relative to the channel's largest value: training needs",
        "encode alone, and decoding a flow trained this hard in float32 may lose all digits (a sigmoid scale shrinks",
        "by up to 20 times per coupling).",
        "",
        "| flow | largest scale | finite | stopped | median round trip |",
        "|---|---|---|---|---|",
    ]
    for name, result in record["results"].items():
        finite, trip = f"{result['finite']} of {result['seeds']}", result["median_round_trip"]
        cells = [name, f"{result['largest_scale']:.0e}", finite, str(len(result["stopped"]))]
        lines.append(f"| {' | '.join(cells)} | {'–' if trip is None else format(trip, '.1e')} |")
    lines += ["", footer(record, "flows/robustness.py")]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--couplings", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="keep the recorded seeds that were finite, run the others")
    arguments = parser.parse_args()
    record: dict[str, Any] = provenance(threads=arguments.workers)
    start = time.monotonic()
    record |= {"couplings": arguments.couplings, "steps": arguments.steps, "workers": arguments.workers, "results": {}}
    earlier = HERE / "robustness.json"
    kept = json.loads(earlier.read_text())["results"] if arguments.again and earlier.exists() else {}
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        for name in FLOWS:
            task = partial(run, name, couplings=arguments.couplings, steps=arguments.steps)
            seeds = [r["seed"] for r in kept[name]["stopped"]] if name in kept else range(arguments.seeds)
            found = summary(name, list(pool.map(task, seeds)))
            record["results"][name] = merged(kept[name], found) if name in kept else found
            record["seconds"] = round(time.monotonic() - start)
            write(HERE / "robustness.json", record)
            (HERE / "robustness.md").write_text(page(record))
            print(f"{name}: {record['results'][name]['finite']} of {arguments.seeds} finite", flush=True)


if __name__ == "__main__":
    main()
