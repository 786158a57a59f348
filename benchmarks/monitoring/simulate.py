"""How often a monitor raises a false alarm in 10,000 images, and how late it finds a change, by simulation.

    python -m benchmarks.monitoring.simulate             # 1,000 streams a cell; writes martingale.json

Scores are drawn, placed by `dracones.monitoring`'s own ranking and bet on by its own wager, a thousand streams at a
time. A change adds half a standard deviation to every score from some image on.
"""

import argparse
from array import array
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import records
from benchmarks.provenance import Stopwatch, provenance
from dracones.calibration import clopper_pearson
from dracones.monitoring.ranking import Ranking
from dracones.monitoring.wager import Wager

HERE = Path(__file__).parent
RATE, RISK_SHARE, LENGTH = 0.01, 0.1, 10_000
THRESHOLD = -np.log(RATE * (1 - RISK_SHARE))
LAWS = {
    "normal": lambda random, shape: random.normal(size=shape),
    "exponential": lambda random, shape: random.exponential(size=shape),
    "normal, rounded to halves": lambda random, shape: np.rint(2 * random.normal(size=shape)) / 2,
}
Float = NDArray[np.float64]


def placed(calibration: Float, scores: Float, keep: int, random: np.random.Generator) -> tuple[Float, Float]:
    """p-values ``[S, T]`` of streams of scores, and the slack at each time, ``[T]``."""
    p_values, slack = np.empty_like(scores), np.zeros(scores.shape[1])
    for stream, (normal, row) in enumerate(zip(calibration, scores, strict=True)):
        ranking = Ranking(array("d", np.sort(normal).tolist()), keep=keep, risk=RISK_SHARE * RATE)
        coins = (1 - random.random(len(row))).tolist()
        answers = [ranking.place(score, coin) for score, coin in zip(row.tolist(), coins, strict=True)]
        p_values[stream] = [answer.p_value for answer in answers]
        slack[:] = [answer.slack for answer in answers]
    return p_values, slack


def alarms(p_values: Float, slack: Float) -> NDArray[np.intp]:
    """At which score (from 1) each stream raises its alarm; 0: never."""
    wager, found = Wager((len(p_values),)), np.zeros(len(p_values), dtype=np.intp)
    for time in range(p_values.shape[1]):
        wager.update(p_values[:, time], float(slack[time]))
        found[(found == 0) & (wager.log_capital >= THRESHOLD)] = time + 1
    return found


def false_alarms(law: str, count: int, keep: int, streams: int, seed: int, *, corrected: bool = True) -> dict[str, Any]:
    """Streams without a change."""
    random = np.random.default_rng(seed)
    draw = LAWS[law]
    p_values, slack = placed(draw(random, (streams, count)), draw(random, (streams, LENGTH)), keep, random)
    raised = int((alarms(p_values, slack if corrected else np.zeros_like(slack)) > 0).sum())
    share = clopper_pearson(raised, streams)
    kind = "grows" if keep >= LENGTH else f"fixed after {keep}" if keep else "fixed"
    return {
        "law": law,
        "calibration": count,
        "set": kind if corrected else f"{kind}, taken as it is",
        "streams": streams,
        "alarms": raised,
        "share": share.value,
        "low": share.low,
        "high": share.high,
    }


def delay(count: int, change: int, streams: int, seed: int, *, keep: int = LENGTH, after: int = 2000) -> dict[str, Any]:
    """Streams whose scores rise by half a standard deviation after ``change`` images."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=(streams, change + after))
    scores[:, change:] += 0.5
    raised = alarms(*placed(random.normal(size=(streams, count)), scores, keep, random))
    late = np.where(raised > change, raised - change, np.inf)[(raised == 0) | (raised > change)]
    quantiles = np.quantile(late, (0.5, 0.9), method="higher")
    return {
        "calibration": count,
        "change_after": change,
        "set": "grows" if keep >= LENGTH else f"fixed after {keep}" if keep else "fixed",
        "streams": streams,
        "median": None if np.isinf(quantiles[0]) else int(quantiles[0]),
        "ninth_decile": None if np.isinf(quantiles[1]) else int(quantiles[1]),
        "not_found": int(np.isinf(late).sum()),
        "images_watched": after,
    }


def run(streams: int) -> dict[str, Any]:
    """All cells."""
    origin, watch = provenance(), Stopwatch()
    quiet = [false_alarms("normal", count, LENGTH, streams, seed) for seed, count in enumerate((0, 1000))]
    quiet += [false_alarms(law, 300, LENGTH, streams, 10 + seed) for seed, law in enumerate(list(LAWS)[1:])]
    quiet += [false_alarms("normal", 1000, keep, streams, 20 + keep) for keep in (0, 2000)]
    quiet += [false_alarms("normal", count, 0, streams, 30 + count, corrected=False) for count in (100, 1000)]
    delays = [delay(1000, change, streams, 40) for change in (0, 1000, 8000)]
    delays += [delay(count, change, streams // 2, 50) for count in (100, 300) for change in (0, 1000, 8000)]
    delays += [delay(1000, change, streams // 2, 60, keep=2000) for change in (0, 8000)]
    return {**origin, **watch.read(), "rate": RATE, "length": LENGTH, "false_alarms": quiet, "delays": delays}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=HERE / "martingale.json")
    arguments = parser.parse_args()
    records.write(arguments.output, run(arguments.streams))


if __name__ == "__main__":
    main()
