"""Run methods on the inspection sets and write one JSON a run.

    DRACONES_TEST_DATA=... python -m benchmarks.inspection.run --out results --method fastflow --set screw --seeds 0 1 2

The last epoch is used, no image is held out of training, and no test image chooses anything: each method's image score
is the one of its defaults; the other ways to make a score of a map are recorded beside it.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dracones
from benchmarks.inspection.entries import BACKBONES, METHODS, options
from benchmarks.inspection.sets import SETS, unpacked
from benchmarks.inspection.witnesses import Heard
from benchmarks.provenance import provenance
from benchmarks.records import write
from dracones.images import MvtecLayout
from dracones.metrics import Ranking, auroc, auroc_interval
from dracones.metrics.pixels import PixelRanking


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    os.environ.setdefault("DRACONES_CACHE", str(arguments.work / "cache"))
    for seed in arguments.seeds:
        name = f"{arguments.set}-{arguments.method}-{arguments.backbone}{arguments.tag}-{seed}"
        target = arguments.out / f"{name}.json"
        if target.exists():
            print(f"{name}: there already")
            continue
        extra, variants = json.loads(arguments.options), json.loads(arguments.variants)
        results = run(arguments.set, arguments.method, arguments.backbone, seed, arguments.work, extra, variants)
        for variant, result in zip(({}, *variants), results, strict=True):
            tag = "".join(f"-{value}" for value in variant.values())
            write(target.with_name(f"{name.removesuffix(f'-{seed}')}{tag}-{seed}.json"), result)
            shown = {key: result[key] for key in ("image_auroc", "pixel_auroc", "aupro", "fit_cpu_seconds")}
            print(name + tag, json.dumps(shown), flush=True)


def run(
    set_name: str,
    method: str,
    backbone: str,
    seed: int,
    work: Path,
    extra: dict[str, Any],
    variants: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Fit on the good training images, score the test images, compare with labels and masks.

    `variants` are options that only scoring reads: the fitted model is judged with each of them too.
    """
    layout = MvtecLayout(unpacked(set_name, work))
    chosen = {**options(method, backbone, seed), **extra}
    detector = dracones.create(method, **chosen)
    started, cpu = time.monotonic(), time.process_time()
    detector.fit(layout.train)
    fit_seconds, fit_cpu = time.monotonic() - started, time.process_time() - cpu
    about = {
        "set": set_name,
        "method": method,
        "backbone": backbone,
        "seed": seed,
        "train_images": len(layout.train),
        "fit_seconds": round(fit_seconds, 1),
        "fit_cpu_seconds": round(fit_cpu, 1),
    }
    results = []
    for variant in ({}, *variants):
        detector.method.config = detector.config = detector.config.model_copy(update=variant)
        shown = {key: value for key, value in {**chosen, **variant}.items() if key != "weights"}
        maps = work / "maps" / "-".join([set_name, method, backbone, *variant.values(), str(seed)])
        results.append(
            {**about, "options": shown, **judged(detector, layout, maps), **provenance(threads=torch.get_num_threads())}
        )
    return results


def judged(detector: dracones.detectors.Detector, layout: MvtecLayout, keep: Path) -> dict[str, Any]:
    """Scores and maps of the test images against labels and masks; seed 0's maps are kept at `keep`."""
    test = layout.test
    pixels, scores, others = PixelRanking(), [], []
    started, cpu = time.monotonic(), time.process_time()
    spent = 0.0
    maps: dict[str, np.ndarray] = {}
    heard = Heard(detector)
    for index, verdict in enumerate(detector.iterate(test, batch_size=8)):
        paused = time.process_time()
        scores.append(verdict.score)
        if verdict.map is not None:
            mask = test.mask(index)
            truth = np.zeros(verdict.map.shape, bool) if mask is None else mask.numpy()
            pixels.add(verdict.map, truth)
            ordered = np.sort(verdict.map.ravel())
            top = {
                f"top_{share}": ordered[-max(1, round(share * ordered.size)) :].mean() for share in (0.003, 0.03, 0.1)
            }
            others.append({"max": ordered[-1], **top, "mean": ordered.mean()})
            if keep.name.endswith("-0"):
                maps[verdict.path] = verdict.map.astype(np.float16)
        spent += time.process_time() - paused
    score_seconds, score_cpu = time.monotonic() - started, time.process_time() - cpu - spent
    if maps:
        keep.parent.mkdir(parents=True, exist_ok=True)
        np.savez(keep, **{name.replace("/", "|"): value for name, value in maps.items()})
    labels = np.asarray(test.labels)
    kinds = [path.split("/")[-2] for path in test.names]
    by_kind = {}
    for kind in sorted(set(kinds) - {"good"}):
        picked = np.array([k in (kind, "good") for k in kinds])
        by_kind[kind] = round(float(auroc(np.array(scores)[picked], labels[picked])), 4)
    with tempfile.TemporaryDirectory() as folder:
        size = detector.save(Path(folder) / "model.safetensors").stat().st_size
    return {
        "image_auroc": round(float(auroc(np.array(scores), labels)), 4),
        "image_auroc_interval": [round(end, 4) for end in auroc_interval(Ranking(np.array(scores), labels))[1:]],
        "scores": [round(score, 5) for score in scores],
        "labels": labels.tolist(),
        **heard.record(scores, labels),
        "image_auroc_by_kind": by_kind,
        "image_auroc_of_other_scores": {
            how: round(float(auroc(np.array([other[how] for other in others]), labels)), 4) for how in others[0]
        }
        if others
        else None,
        "pixel_auroc": round(float(pixels.auroc()), 4) if others else None,
        "aupro": round(float(pixels.aupro()), 4) if others else None,
        "test_images": len(labels),
        "score_seconds_with_metrics": round(score_seconds, 1),
        "score_cpu_seconds": round(score_cpu, 1),
        "images_per_cpu_second": round(len(labels) / score_cpu, 2),
        "file_megabytes": round(size / 1e6, 2),
        "peak_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=list(METHODS), required=True)
    parser.add_argument("--set", choices=SETS, required=True)
    parser.add_argument("--backbone", choices=list(BACKBONES), default="resnet18")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dracones-inspection")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--options", default="{}", help="JSON of options that differ from the entry")
    parser.add_argument(
        "--variants", default="[]", help="JSON list of options of scoring alone, judged on the same fit"
    )
    parser.add_argument("--tag", default="", help="put into the file's name, where options differ")
    return parser.parse_args()


if __name__ == "__main__":
    main()
