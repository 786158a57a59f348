"""What a training step costs beside its arithmetic: `train` against a loop written by hand, CPU seconds, one thread.

    python -m benchmarks.training.overhead [--out overhead.json]

The two take turns, so that whatever else the machine does falls
on both; the medians over the turns are compared. The hand-written loop does what most do: index, loss, backward, fused
Adam, read the loss. `train` also seeds each step, checks loss and gradients for NaN, follows a schedule, clips, and
tells its progress.
"""

import argparse
import copy
import json
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.provenance import Stopwatch, provenance
from benchmarks.records import write
from dracones.training import TrainingConfig, train

TURNS = 15
# Name: width, depth, batch. The widest and the deepest take about 5 ms a step.
MODELS = {"tiny": (16, 2, 8), "wide": (384, 3, 128), "deep": (64, 40, 128)}


def build(width: int, depth: int) -> nn.Sequential:
    """A plain network from 64 numbers to 64 numbers."""
    hidden = [layer for _ in range(depth) for layer in (nn.ReLU(), nn.Linear(width, width))]
    return nn.Sequential(nn.Linear(64, width), *hidden, nn.Linear(width, 64))


def loss(module: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG001 - as train calls it
    """Mean squared error of the identity."""
    return ((module(batch) - batch) ** 2).mean()


def by_hand(module: nn.Module, data: Tensor, steps: int, batch_size: int) -> float:
    """CPU seconds of the loop that most people write."""
    begun = time.process_time()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)
    generator = torch.Generator()
    places = len(data) // batch_size
    order = torch.randperm(len(data))
    for step in range(steps):
        place = step % places
        value = loss(module, data[order[place * batch_size : (place + 1) * batch_size]], generator)
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value.item()
    return time.process_time() - begun


def by_train(module: nn.Module, data: Tensor, steps: int, batch_size: int) -> float:
    """CPU seconds of the same through `train`."""
    config = TrainingConfig(max_steps=steps, batch_size=batch_size, device="cpu", clip_norm=1.0, schedule="cosine")
    begun = time.process_time()
    train(module, data, config, loss=loss)
    return time.process_time() - begun


def race(width: int, depth: int, batch_size: int) -> dict[str, float]:
    """Milliseconds a step, the two taking turns."""
    module, data = build(width, depth), torch.randn(4096, 64, generator=torch.Generator().manual_seed(0))
    steps = max(50, round(0.4 / (by_hand(copy.deepcopy(module), data, 20, batch_size) / 20)))
    by_train(copy.deepcopy(module), data, 5, batch_size)
    seconds: dict[str, list[float]] = {"hand": [], "train": []}
    for _ in range(TURNS):
        for name, loop in (("hand", by_hand), ("train", by_train)):
            seconds[name].append(loop(copy.deepcopy(module), data, steps, batch_size) / steps)
    hand, trained = (statistics.median(seconds[name]) for name in ("hand", "train"))
    return {
        "hand_steps_per_second": round(1 / hand, 1),
        "train_steps_per_second": round(1 / trained, 1),
        "hand_ms": round(1e3 * hand, 4),
        "overhead_ms": round(1e3 * (trained - hand), 4),
        "overhead_share": round(trained / hand - 1, 4),
        "parameter_tensors": len(list(module.parameters())),
    }


def main() -> None:
    """Race all models; print the result, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    watch = Stopwatch()
    result = {
        "models": {name: race(*shape) for name, shape in MODELS.items()},
        **provenance(),
        "turns": TURNS,
        **watch.read(),
    }
    print(json.dumps(result, indent=1))
    if arguments.out:
        write(arguments.out, result)


if __name__ == "__main__":
    main()
