"""What each library does in the race: one entrant run in a process of its own, which prints one JSON object.

    python entrants.py ENTRANT SCORES.npy LABELS.npy

Called by race.py; only NumPy and the entrant's own library are imported, so any environment will do. The clock starts
after the imports, the reading of the data and a warm-up on a small part of it.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np

Values = dict[str, float]
Compute = Callable[[Any, Any], Values]

BATCH = 32  # maps handed over at a time, as an evaluation loop does


def dracones_images() -> Compute:
    from dracones.metrics import Ranking

    def compute(scores: Any, labels: Any) -> Values:
        ranking = Ranking(scores, labels)
        fpr = ranking.fpr_at_tpr(0.95, positive="out")
        return {"auroc": ranking.auroc(), "aupr_out": ranking.aupr("out"), "fpr_at_tpr95": fpr}

    return compute


def scikit_learn_images() -> Compute:
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    def compute(scores: Any, labels: Any) -> Values:
        alarms, found, _ = roc_curve(labels, scores)
        return {
            "auroc": float(roc_auc_score(labels, scores)),
            "aupr_out": float(average_precision_score(labels, scores)),
            "fpr_at_tpr95": float(alarms[np.argmax(found >= 0.95)]),
        }

    return compute


def pytorch_ood_images() -> Compute:
    import torch
    from pytorch_ood.metrics import AUPR, AUROC, FPRAtTPR
    from pytorch_ood.metrics.base import MetricCollection

    torch.set_num_threads(1)

    def compute(scores: Any, labels: Any) -> Values:
        metrics = MetricCollection([AUROC(), AUPR("ood"), FPRAtTPR(0.95)])
        metrics.update(scores=torch.from_numpy(scores), labels=-torch.from_numpy(labels.view(np.int8)))
        auroc, aupr, fpr = metrics.compute().values()
        return {"auroc": float(auroc), "aupr_out": float(aupr), "fpr_at_tpr95": float(fpr)}

    return compute


def torchmetrics_images() -> Compute:
    import torch
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision, binary_roc

    torch.set_num_threads(1)

    def compute(scores: Any, labels: Any) -> Values:
        # The scores lie in [0, 1]: any other would be put through a sigmoid, which ties them.
        predicted, target = torch.from_numpy(scores), torch.from_numpy(labels.view(np.int8)).long()
        alarms, found, _ = binary_roc(predicted, target, validate_args=False)
        return {
            "auroc": float(binary_auroc(predicted, target, validate_args=False)),
            "aupr_out": float(binary_average_precision(predicted, target, validate_args=False)),
            "fpr_at_tpr95": float(alarms[(found >= 0.95).int().argmax()]),
        }

    return compute


def dracones_maps() -> Compute:
    from dracones.metrics import PixelRanking

    def compute(maps: Any, masks: Any) -> Values:
        ranking = PixelRanking()
        for start in range(0, len(maps), BATCH):
            ranking.add(maps[start : start + BATCH], masks[start : start + BATCH])
        return {"auroc": ranking.auroc(), "f1_max": ranking.f1_max().value, "aupro": ranking.aupro(0.3)}

    return compute


def dracones_maps_intervals() -> Compute:
    from dracones.metrics import evaluate_maps

    def compute(maps: Any, masks: Any) -> Values:
        result = evaluate_maps(maps, masks)
        return {name: result[name]["value"] for name in ("auroc", "f1_max", "aupro")}

    return compute


def anomalib_maps() -> Compute:
    import torch
    from anomalib.metrics.aupro import _AUPRO
    from anomalib.metrics.auroc import _AUROC
    from anomalib.metrics.f1_score import _F1Max

    torch.set_num_threads(1)

    def compute(maps: Any, masks: Any) -> Values:
        values = {}
        for name, metric in (("auroc", _AUROC()), ("f1_max", _F1Max()), ("aupro", _AUPRO(fpr_limit=0.3))):
            for start in range(0, len(maps), BATCH):
                predicted = torch.from_numpy(maps[start : start + BATCH])
                target = torch.from_numpy(masks[start : start + BATCH].view(np.int8)).int()
                metric.update(predicted, target)
            values[name] = float(metric.compute())
            metric.reset()
        return values

    return compute


def scikit_learn_maps() -> Compute:
    from sklearn.metrics import precision_recall_curve, roc_auc_score

    def compute(maps: Any, masks: Any) -> Values:
        scores, labels = maps.ravel(), masks.ravel()
        auroc = float(roc_auc_score(labels, scores))
        precision, recall, _ = precision_recall_curve(labels, scores)
        with np.errstate(invalid="ignore"):
            return {"auroc": auroc, "f1_max": float(np.nanmax(2 * precision * recall / (precision + recall)))}

    return compute


ENTRANTS: dict[str, tuple[str, Callable[[], Compute]]] = {
    "images/dracones": ("dracones", dracones_images),
    "images/scikit-learn": ("scikit-learn", scikit_learn_images),
    "images/pytorch-ood": ("pytorch-ood", pytorch_ood_images),
    "images/torchmetrics": ("torchmetrics", torchmetrics_images),
    "maps/dracones": ("dracones", dracones_maps),
    "maps/dracones, all metrics with intervals": ("dracones", dracones_maps_intervals),
    "maps/anomalib": ("anomalib", anomalib_maps),
    "maps/scikit-learn (no AUPRO)": ("scikit-learn", scikit_learn_maps),
}


def memory(field: str) -> float:
    """`VmRSS` or `VmHWM` (its peak) of this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def main() -> None:
    entrant, scores_file, labels_file = sys.argv[1:]
    distribution, make = ENTRANTS[entrant]
    compute = make()
    scores, labels = np.load(scores_file), np.load(labels_file)
    small = slice(0, 4 if scores.ndim == 3 else 1000)
    compute(scores[small], labels[small])
    Path("/proc/self/clear_refs").write_text("5")  # from here on VmHWM is the peak of the timed part
    before, start = memory("VmRSS"), time.process_time()
    values = compute(scores, labels)
    seconds = time.process_time() - start
    print(
        json.dumps(
            {
                "version": version(distribution),
                "cpu_seconds": seconds,
                "extra_mb": memory("VmHWM") - before,
                "values": values,
            }
        )
    )


if __name__ == "__main__":
    main()
