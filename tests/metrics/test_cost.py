"""What the metrics cost: guards against a slow or hungry change; benchmarks/metrics holds the race itself."""

import time
import tracemalloc

import numpy as np
from sklearn import metrics as sklearn

from dracones.metrics import PixelRanking, Ranking


def cpu_seconds(call, times=3):
    taken = []
    for _ in range(times):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return min(taken)


def three_metrics(scores, labels):
    ranking = Ranking(scores, labels)
    return ranking.auroc(), ranking.aupr("out"), ranking.fpr_at_tpr(positive="out")


def three_of_scikit_learn(scores, labels):
    sklearn.roc_curve(labels, scores)
    return sklearn.roc_auc_score(labels, scores), sklearn.average_precision_score(labels, scores)


def test_far_faster_than_scikit_learn():
    rng = np.random.default_rng(0)
    scores, labels = rng.standard_normal(500_000, dtype=np.float32), rng.random(500_000) < 0.5
    assert 5 * cpu_seconds(lambda: three_metrics(scores, labels)) < cpu_seconds(
        lambda: three_of_scikit_learn(scores, labels), times=1
    )


def test_one_sort_of_scores_takes_less_than_32_bytes_each():
    rng = np.random.default_rng(0)
    scores, labels = rng.standard_normal(1_000_000, dtype=np.float32), rng.random(1_000_000) < 0.5
    tracemalloc.start()
    three_metrics(scores, labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32e6


def test_thousand_maps_would_fit_one_gigabyte():
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((50, 256, 256), dtype=np.float32)
    masks = np.zeros(maps.shape, dtype=bool)
    masks[:, 20:60, 30:80] = True
    tracemalloc.start()
    pixels = PixelRanking()
    for scores, mask in zip(maps, masks, strict=True):
        pixels.add(scores, mask)
    pixels.auroc(), pixels.aupro(), pixels.f1_max()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e9 / 1000 * 50
