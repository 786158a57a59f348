"""Metrics of order: how well scores separate normal from anomalous images and pixels, exactly, with intervals.

Larger score = more anomalous; label 1 = anomalous (`"out"`), 0 = normal (`"in"`). Every metric depends on the order
of the scores alone, is exact under ties, refuses NaN with its count, and takes arrays or tensors.
"""

from dracones.metrics.curves import PrCurve, RocCurve, pr_curve, roc_curve
from dracones.metrics.evaluate import evaluate_maps, evaluate_scores
from dracones.metrics.image import aupr_in, aupr_out, auroc, detection_error, f1_max, fpr_at_tpr
from dracones.metrics.intervals import Estimate, auroc_interval, fpr_at_tpr_interval
from dracones.metrics.maps import aupro, pixel_auroc
from dracones.metrics.pixels import PixelRanking, ProCurve
from dracones.metrics.ranking import Ranking
from dracones.metrics.staircase import F1Max, OperatingPoint

__all__ = [
    "Estimate",
    "F1Max",
    "OperatingPoint",
    "PixelRanking",
    "PrCurve",
    "ProCurve",
    "Ranking",
    "RocCurve",
    "aupr_in",
    "aupr_out",
    "aupro",
    "auroc",
    "auroc_interval",
    "detection_error",
    "evaluate_maps",
    "evaluate_scores",
    "f1_max",
    "fpr_at_tpr",
    "fpr_at_tpr_interval",
    "pixel_auroc",
    "pr_curve",
    "roc_curve",
]
