"""Train the densities of the tables, each once: `python -m benchmarks.paradox.train [NAME ...] [--models DIR]`.

A finished run is a safetensors file of the weights with its record beside it; a killed one goes on where it was.
"""

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.paradox.datasets import fingerprint, train_images
from benchmarks.paradox.runs import RUNS, Run
from benchmarks.provenance import provenance
from benchmarks.records import write
from dracones.densities import Density, create
from dracones.rules import replace_pixels
from dracones.training import RichProgress, train

MODELS = Path.home() / ".cache" / "dracones" / "paradox"


def build(run: Run) -> Density:
    """The untrained density of a run, laid out for the CPU's convolutions."""
    shape = tuple(train_images(run.data).shape[1:])
    density = create(run.density, run.preset, image_shape=shape, seed=run.seed, **run.options)
    return density.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def load(run: Run, models: Path) -> tuple[Density, dict[str, Any]]:
    """The trained density of a run, in eval mode, and its record."""
    record = json.loads((models / f"{run.key}.json").read_text())
    density = build(run)
    state = load_file(models / f"{run.key}.safetensors")
    # indices derived from the masks were once saved beside them; the weights of such runs stay readable
    state = {name: tensor for name, tensor in state.items() if not name.endswith(("read_index", "change_index"))}
    density.load_state_dict(state)
    return density.eval(), record


def fit(run: Run, models: Path) -> None:
    """Train one run unless its file is there."""
    weights = models / f"{run.key}.safetensors"
    if weights.exists():
        print(f"{run.key}: already trained", flush=True)
        return
    models.mkdir(parents=True, exist_ok=True)
    images = train_images(run.data)
    data = torch.cat([images, images.flip(-1)]) if run.flip else images
    density = build(run)
    cpu = time.process_time()
    report = train(
        density,
        data,
        run.training(),
        checkpoint=models / f"{run.key}.checkpoint",
        progress=RichProgress(),
        loss=_loss(run),
    )
    record = {
        "run": run.key,
        "density": density.config,
        "parameters": sum(parameter.numel() for parameter in density.parameters()),
        "training": run.training().model_dump(),
        "trained_on": {"set": run.data, "images": len(images), "flipped": run.flip, "sha256": fingerprint(images)},
        "replaced_pixels": run.replace_rate,
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "wall_seconds": round(report.seconds, 1),
        "resumed_from": report.resumed_from,
        "images_seen": report.images,
        "skipped_steps": report.skipped_steps,
        "final_train_bits_per_dim": report.history[-1].train_loss,
        **provenance(),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    write(models / f"{run.key}.json", record)
    state = {name: tensor.contiguous() for name, tensor in density.state_dict().items()}
    save_file(state, str(weights) + ".part")
    Path(str(weights) + ".part").rename(weights)
    (models / f"{run.key}.checkpoint").unlink(missing_ok=True)
    print(json.dumps(record), flush=True)


def _loss(run: Run) -> Any:
    def loss(module: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        images = batch.float() / 255
        if run.replace_rate:
            images = replace_pixels(images, rate=run.replace_rate, generator=generator)
        return module.training_loss(images, generator=generator)  # type: ignore[operator, no-any-return]

    return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="runs, by key or by a part of it; default: all")
    parser.add_argument("--models", type=Path, default=MODELS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for key, run in RUNS.items():
        if not arguments.names or any(name in f"/{key}" for name in arguments.names):
            fit(run, arguments.models)


if __name__ == "__main__":
    main()
