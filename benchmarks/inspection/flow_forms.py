"""FastFlow's forms against each other, small enough for one core: normalisation, padding, and what is read as heat.

    DRACONES_TEST_DATA=... python -m benchmarks.inspection.flow_forms screw

One level, few steps, some of the good images: two thirds train, a third is held out. For each form the negative
log-density of held-out features in nats a value, normalisation included, so that forms compare, over all positions
and at the border; how many held-out images have their hottest position there; and, for the record, the AUROC of the
test images by each heat (mean of the hottest .3 %, one position here: the maximum).
"""

import argparse
import itertools
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dracones
from benchmarks.inspection.entries import options
from benchmarks.inspection.sets import SETS, unpacked
from benchmarks.provenance import Stopwatch, provenance
from benchmarks.records import write
from dracones.images import ImageCollection, MvtecLayout
from dracones.methods.feature_flows.fastflow import FastFlow, MapFlow
from dracones.methods.heatmap import image_score
from dracones.metrics import auroc

HERE = Path(__file__).parent
Test = tuple[ImageCollection, Any]  # images as the detector treats them, and their labels
HEATS = ("probability", "latent", "likelihood")


def nll(flow: MapFlow, maps: Tensor) -> Tensor:
    """Negative log-density of features, nats a value less a constant, of each position `[B, h, w]`."""
    z, log_det = flow(maps)
    energy = (0.5 * z.square().sum(dim=1) - log_det) / z.shape[1]
    if flow.whitening is not None:
        return energy - torch.linalg.slogdet(flow.whitening.matrix.double()).logabsdet.float() / z.shape[1]
    return energy + maps.flatten(1).std(dim=1).log()[:, None, None]


def at_border(height: int, width: int, cells: int = 1) -> Tensor:
    """Which positions `[h, w]` are within so many cells of the border."""
    border = torch.ones(height, width, dtype=torch.bool)
    border[cells:-cells, cells:-cells] = False
    return border


def heats(flow: MapFlow, maps: Tensor) -> dict[str, Tensor]:
    """Each kind of heat `[B, h, w]`, as FastFlow has them."""
    z, log_det = flow(maps)
    latent = 0.5 * z.square().mean(dim=1)
    return dict(zip(HEATS, (-torch.exp(-latent), latent, latent - log_det / z.shape[1]), strict=True))


@torch.no_grad()
def judged(method: FastFlow, held_out: ImageCollection, test: Test | None) -> dict[str, Any]:
    """Held-out likelihood, where held-out images are hottest, and AUROC of the test images."""
    flow = method.flows[0]
    if not isinstance(flow, MapFlow):
        raise TypeError(f"expected a MapFlow; got {type(flow).__name__}")
    held = torch.cat([maps for (maps,) in method.features_of(held_out).chunks(32)]).float()
    dearth = nll(flow, held)
    border = at_border(*dearth.shape[1:])
    hottest = {how: heat.flatten(1).argmax(dim=1) for how, heat in heats(flow, held).items()}
    return {
        "held_out_nll": round(float(dearth.mean()), 4),
        "held_out_nll_at_border": round(float(dearth[:, border].mean()), 4),
        "held_out_nll_inside": round(float(dearth[:, ~border].mean()), 4),
        "hottest_at_border": {how: round(float(border.flatten()[at].float().mean()), 3) for how, at in hottest.items()},
        "image_auroc": None if test is None else told(method, flow, test),
    }


def told(method: FastFlow, flow: MapFlow, test: Test) -> dict[str, float]:
    """AUROC of the test images by each heat."""
    images, labels = test
    found: dict[str, list[Tensor]] = {how: [] for how in HEATS}
    for (maps,) in method.features_of(images).chunks(32):
        for how, heat in heats(flow, maps.float()).items():
            found[how].append(image_score(heat, "top", 0.003))
    return {how: round(float(auroc(torch.cat(scores).numpy(), labels)), 4) for how, scores in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--level", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--good-only", action="store_true", help="held-out likelihood alone; no test image is read")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dracones-inspection")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("DRACONES_CACHE", str(arguments.work / "cache"))
    layout, clock = MvtecLayout(unpacked(arguments.set, arguments.work)), Stopwatch()
    stride = max(1, len(layout.train) // arguments.images)
    chosen = list(range(0, len(layout.train), stride))[: arguments.images]
    learn = layout.train.subset([index for at, index in enumerate(chosen) if at % 3])
    held_out = layout.train.subset(chosen[::3])
    shared = {"levels": (arguments.level,), "steps": arguments.steps, "epochs": arguments.epochs, "batch_size": 8}
    rows = []
    for normalisation, padding in itertools.product(("image", "whitening"), ("zeros", "reflect")):
        form = {"normalisation": normalisation, "padding": padding}
        detector = dracones.create(
            "fastflow", **{**options("fastflow", "resnet18", 0), "precision": "fp32", **shared, **form}
        ).fit(learn)
        if not isinstance(detector.method, FastFlow):
            raise TypeError(f"expected FastFlow; got {type(detector.method).__name__}")
        test = None if arguments.good_only else (detector.adopt(layout.test), layout.test.labels)
        rows.append({**form, **judged(detector.method, detector.adopt(held_out), test)})
        print(rows[-1], flush=True)
    record = {
        "set": arguments.set,
        **{name: getattr(arguments, name) for name in ("level", "steps", "epochs")},
        "train_images": len(learn),
        "held_out_images": len(held_out),
        "rows": rows,
        **clock.read(),
        **provenance(),
    }
    write(arguments.out / f"flow_forms_{arguments.set}.json", record)


if __name__ == "__main__":
    main()
