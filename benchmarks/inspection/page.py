"""Write README.md from the committed results.

python -m benchmarks.inspection.page
"""

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.inspection.sections import against_single, cost, forms, quality, top_share
from benchmarks.records import read

HERE = Path(__file__).parent
PAGE = HERE / "README.md"

# Published image AUROC / pixel AUROC: papers at full size with large backbones; the peer's re-runs at 256 px.
PUBLISHED = {
    ("screw", "differnet"): "paper .963 (AlexNet, 448 px; recalled)",
    ("screw", "cflow"): "paper ResNet-18 .859 / .984 (512 px); peer WideResNet-50 .908",
    ("screw", "csflow"): "paper .976 (EfficientNet-B5, 768 px); peer .896",
    ("screw", "fastflow"): "paper .978 / .994 (CaiT); peer ResNet-18 .521, WideResNet-50 .839",
    ("screw", "patchcore"): "untuned ResNet-18 memory .846 / .989 (floor)",
    ("mtd", "differnet"): "paper .977 (AlexNet, 448 px)",
    ("mtd", "csflow"): "paper .993 (EfficientNet-B5, 768 px; recalled)",
    ("mtd", "patchcore"): "paper .979 (WideResNet-50); untuned ResNet-18 memory .895 (floor)",
}

HEAD = """# Inspection: magnetic tiles and screws

Made by `page.py` from the JSON files in `results/`; each names its commit, machine and duration.

**Protocol.** Every good training image trains and the last epoch is scored, or, where a row says *held out*, that
share of the good images says when to stop; no test image chooses an epoch, a threshold or a size. Images are brought
to 256x256 (MTD's differ in size and shape, about 100 to 800 pixels a side: they are squeezed, antialiased, as
DifferNet does); heat maps go back to each image's own size and are compared with the mask there. Backbones are the
small ones whose weights were at hand. *Fit* and *images/s* are CPU seconds of one thread on a machine that other work
shared, in most runs with the training images' features in the cache already; convolutions ran in bfloat16 where the
processor has it (`precision="auto"`). One seed unless a spread is given.

Magnetic tiles: 761 good images train, 191 good and 392 defective test (the published split). Screw: MVTec AD's
category, complete, at 256 px: 320 train, 41 good and 119 defective test.
"""


def main() -> None:
    runs = [
        read(path) for path in sorted((HERE / "results").glob("*-*.json")) if path.name.startswith(("screw", "mtd"))
    ]
    lines = [HEAD]
    for set_name, title in (("screw", "Screw"), ("mtd", "Magnetic tile defects")):
        lines += [f"## {title}\n", *_table([run for run in runs if run["set"] == set_name])]
    lines += _other_scores(runs)
    sections = (
        (forms, "flow_forms_*.json"),
        (against_single, "paired.json"),
        (cost, "cost*.json"),
        (quality, "quality*.json"),
        (top_share, "top_share.json"),
    )
    for section, name in sections:
        found = [read(path) for path in sorted((HERE / "results").glob(name))]
        lines += section(found) if found else []
    races = sorted((HERE / "results").glob("race*.json"))
    if races:
        lines += [RACE, *(line for path in races for line in _race(read(path)))]
    shares = HERE / "results" / "profile_step.json"
    if shares.exists():
        lines += _profile(read(shares))
    agreement = HERE / "results" / "agreement.json"
    if agreement.exists():
        found = read(agreement)
        lines += [
            "## The peer's weights in our flows\n",
            "Four random images of 128 px, the peer's flow weights (disturbed) copied over; largest difference of "
            "the heat "
            f"maps: FastFlow {found['fastflow']:.1e}, CFLOW {found['cflow']:.1e} (`peer/dump.py`, `agreement.py`).\n",
        ]
    notes = HERE / "notes.md"
    if notes.exists():
        lines.append(notes.read_text())
    PAGE.write_text("\n".join(lines))


def _grouped(runs: list[dict[str, Any]]) -> list[tuple[tuple[str, str, str, str], list[dict[str, Any]]]]:
    """Runs that differ in their seed alone, the best first."""
    grouped = defaultdict(list)
    for run in runs:
        hidden = ("backbone", "seed", "precision", "validation_share", "calibration_share")
        own = {key: value for key, value in run["options"].items() if key not in hidden}
        if own.get("size") == [256, 256]:
            del own["size"]
        if run["options"].get("validation_share"):
            own["held out"] = run["options"]["validation_share"]
        grouped[run["set"], run["method"], run["backbone"], json.dumps(own)].append(run)
    return sorted(grouped.items(), key=lambda item: -_mean(item[1], "image_auroc"))


def _settings(own: str) -> str:
    return ", ".join(f"{key} {_short(value)}" for key, value in json.loads(own).items()) or "balanced"


def _table(runs: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| method | backbone | settings | image AUROC | pixel AUROC | AUPRO "
        "| fit CPU s | images/s | file MB | published |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (set_name, method, backbone, own), same in _grouped(runs):
        numbers = [_spread(same, key) for key in ("image_auroc", "pixel_auroc", "aupro")]
        costs = [f"{_mean(same, key):.{digits}f}" for key, digits in COSTS]
        published = PUBLISHED.get((set_name, method), "")
        lines.append("| " + " | ".join([method, backbone, _settings(own), *numbers, *costs, published]) + " |")
    return [*lines, ""]


COSTS = (("fit_cpu_seconds", 0), ("images_per_cpu_second", 1), ("file_megabytes", 1))


def _short(value: Any) -> str:
    if isinstance(value, list):
        is_size = all(isinstance(one, int) and one > 8 for one in value)
        return ("x" if is_size else "+").join(map(str, value))
    return str(value)


def _mean(runs: list[dict[str, Any]], key: str) -> float:
    return statistics.fmean(run[key] for run in runs)


def _spread(runs: list[dict[str, Any]], key: str) -> str:
    values = [run[key] for run in runs if run[key] is not None]
    if not values:
        return "no map"
    mean = f"{statistics.fmean(values):.3f}".removeprefix("0")
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.3f} ({len(values)} seeds)"


def _other_scores(runs: list[dict[str, Any]]) -> list[str]:
    """How the same maps would have scored with another way to make one number of a map; for the record."""
    lines = [
        "## The same maps, other image scores\n",
        "How a map becomes one number matters as much as the flow. Means over seeds, for the record; nothing above was "
        "chosen by it.\n",
        "| set | method | backbone | settings | max | top 0.3 % | top 3 % | top 10 % | mean |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (set_name, method, backbone, own), same in _grouped(runs):
        found = [run["image_auroc_of_other_scores"] for run in same]
        if all(found):
            means = (statistics.fmean(other[how] for other in found) for how in found[0])
            numbers = [f"{mean:.3f}".removeprefix("0") for mean in means]
            lines.append("| " + " | ".join([set_name, method, backbone, _settings(own), *numbers]) + " |")
    return [*lines, ""]


RACE = """## Race against anomalib 2.7.0

The same ResNet-18 file, images, batches, epochs and threads on both sides, screw at 256 px, one side after the other in
one run, cold start (our feature cache is empty and filling it counts; both sides' libraries are imported before the
clock). Times are CPU seconds, with wall seconds where there are several threads; the peer's validation and visualiser
are off. The peer's CS-Flow always downloads its backbone: it was given ResNet-18's third level in its place, ours its
1,024 hidden channels. Its file is a Lightning checkpoint; its bare weights are in brackets. *In backbone*: share of the
time of fitting, and of scoring, spent in ResNet-18, the floor. AUROC is of a few test images after few epochs, from one
draw of weights: it says that both sides learn, no more. The race of 320 images is of `peer/fit.py` and `ours.py`, each
started by hand beside other work, and judged on all 160 test images.
"""


def _race(race: dict[str, Any]) -> list[str]:
    threads = race["threads"]
    lines = [
        f"### {race['train_images']} images, {race['epochs']} epochs, {threads} thread{'s' if threads > 1 else ''}\n",
        "| method | side | fit s | against peer | images/s scored | against peer | peak MB | against peer | file MB "
        "| in backbone: fit, score | AUROC |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    clock = "seconds" if threads > 1 else "cpu_seconds"
    peers = {result["method"]: result for result in race["results"] if result["side"] == "anomalib"}
    for result in race["results"]:
        peer = peers[result["method"]]
        fit, score = f"fit_{clock}", f"score_{clock}"
        rate, peer_rate = (side["images"] / side[score] for side in (result, peer))
        bare = f" ({result['weights_only_megabytes']:.0f})" if result["side"] == "anomalib" else ""
        floors = (result["fit_backbone_cpu_seconds"], result["score_backbone_cpu_seconds"])
        spent = (result["fit_cpu_seconds"], result["score_cpu_seconds"])
        cells = [
            result["method"],
            result["side"],
            f"{result[fit]:.1f}",
            f"{peer[fit] / result[fit]:.1f}x",
            f"{rate:.1f}",
            f"{rate / peer_rate:.1f}x",
            f"{result['peak_megabytes']:.0f}",
            f"{peer['peak_megabytes'] / result['peak_megabytes']:.1f}x less",
            f"{result['file_megabytes']:.0f}{bare}",
            ", ".join(f"{floor / whole:.0%}" for floor, whole in zip(floors, spent, strict=True)),
            f"{result['image_auroc']:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def _profile(found: dict[str, Any]) -> list[str]:
    lines = [
        "## Where a training step's and a scored batch's time goes\n",
        f"{found['threads']} thread; `profile_step.py`. Shares of self time by kind of operator.\n",
        "| method | precision | step s (batch) | of it | score of 8 s | backbone's share | of it |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["results"]:
        step, score = (
            ", ".join(f"{kind} {share:.0%}" for kind, share in row[key].items() if share >= 0.01)
            for key in ("step_shares", "score_shares")
        )
        cells = [
            row["method"],
            row["precision"],
            f"{row['step_seconds']:.2f} ({row['batch']})",
            step,
            f"{row['score_8_seconds']:.3f}",
            f"{row['backbone_share_of_score']:.0%}",
            score,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


if __name__ == "__main__":
    main()
