"""Where a training step and a scored batch spend their time: shares by kind of operator, one thread, as JSON.

    DRACONES_TEST_DATA=... python -m benchmarks.inspection.profile_step --out results/profile_step.json

Features of random images through the real backbone; the network, batch and precision of the race. Self time as
PyTorch's profiler reports it, which itself costs some time: read shares, not seconds; seconds are taken without it.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import dracones
from benchmarks.inspection.sets import data_root
from benchmarks.provenance import provenance
from benchmarks.records import write
from dracones.training.optimizers import make_optimizer

HERE = Path(__file__).parent
KINDS = {
    "convolutions": ("convolution",),
    "matrix products": ("mm", "matmul", "linear", "addmm"),
    "layout and casts": ("copy_", "index_select", "index_copy", "index_add", "cat", "fill_", "clone", "contiguous"),
    "optimizer": ("adam",),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "fastflow": {"levels": (1, 2, 3), "batch_size": 32},
    "cflow": {"levels": (2, 3), "batch_size": 32},
    "csflow": {"levels": (3,), "batch_size": 16, "hidden": 1024},
}


def kind_of(operator: str) -> str:
    """The first kind one of whose words is in the operator's name."""
    return next((kind for kind, words in KINDS.items() if any(word in operator for word in words)), "element-wise")


def shares(work: Callable[[], Any]) -> dict[str, float]:
    """Share of self time by kind."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        work()
    spent: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        spent[kind_of(event.key)] += event.self_cpu_time_total
    total = sum(spent.values())
    return {kind: round(value / total, 3) for kind, value in sorted(spent.items(), key=lambda item: -item[1])}


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """Least CPU seconds of some repeats after one to warm up."""
    work()
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return round(best, 3)


def measure(method: str, precision: str, repeats: int) -> dict[str, Any]:
    """One row."""
    weights = str(data_root() / "backbones" / "resnet18_tv_layer123_fp16.safetensors")
    options = {**OPTIONS[method], "backbone": "resnet18", "weights": weights, "size": (256, 256)}
    model = dracones.create(method, **options, precision=precision).method
    model.build((3, 256, 256))
    model.load_backbone()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(options["batch_size"], 3, 256, 256, generator=generator)

    def autocast() -> AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()

    @torch.no_grad()
    def backbone(count: int = 8) -> tuple[torch.Tensor, ...]:
        with autocast():
            return tuple(level.float() for level in model.extractor(images[:count]))

    maps = backbone(len(images))
    loss_of = model.training_loss
    optimizer = make_optimizer([p for p in model.parameters() if p.requires_grad], model.training_config())

    def step() -> None:
        with autocast():
            loss = loss_of(maps)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def score() -> None:
        model(images[:8])

    row = {"method": method, "precision": precision, "batch": len(images), "step_seconds": seconds(step, repeats)}
    row["step_shares"] = shares(step)
    model.eval()
    row |= {"score_8_seconds": seconds(score, repeats), "backbone_8_seconds": seconds(backbone, repeats)}
    row["backbone_share_of_score"] = round(row["backbone_8_seconds"] / row["score_8_seconds"], 3)
    row["score_shares"] = shares(score)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["fastflow", "csflow"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "profile_step.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for method in arguments.methods:
        for precision in arguments.precisions:
            rows.append(measure(method, precision, arguments.repeats))
            print(json.dumps(rows[-1]), flush=True)
    write(arguments.out, {**provenance(threads=arguments.threads), "results": rows})


if __name__ == "__main__":
    main()
