"""Write README.md from the committed results.

python benchmarks/inspection/page.py
"""

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

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

**Protocol.** Every good training image trains, the last epoch is scored, no test image chooses an epoch, a threshold
or a size. Images are brought to 256x256 (MTD's differ in size and shape, about 100 to 800 pixels a side: they are
squeezed, antialiased, as DifferNet does); heat maps go back to each image's own size and are compared with the mask
there. Backbones are the small ones whose weights were at hand. *Fit* and *images/s* are CPU seconds of one thread on a
machine that other work shared; convolutions ran in bfloat16 where the processor has it (`precision="auto"`). One seed
unless a spread is given.

Magnetic tiles: 761 good images train, 191 good and 392 defective test (the published split). Screw: MVTec AD's
category, complete, at 256 px: 320 train, 41 good and 119 defective test.
"""


def main() -> None:
    runs = [json.loads(path.read_text()) for path in sorted((HERE / "results").glob("*-*.json"))]
    lines = [HEAD]
    for set_name, title in (("screw", "Screw"), ("mtd", "Magnetic tile defects")):
        lines += [f"## {title}\n", *_table([run for run in runs if run["set"] == set_name])]
    lines += _other_scores(runs)
    race = HERE / "results" / "race.json"
    if race.exists():
        lines += _race(json.loads(race.read_text()))
    agreement = HERE / "results" / "agreement.json"
    if agreement.exists():
        found = json.loads(agreement.read_text())
        lines += [
            "## The peer's weights in our flows\n",
            "Four random images of 128 px, the peer's flow weights (disturbed) copied over; largest difference of "
            "the heat "
            f"maps: FastFlow {found['fastflow']:.1e}, CFLOW {found['cflow']:.1e} (`peer/dump.py`, `agreement.py`).\n",
        ]
    notes = HERE / "notes.md"
    if notes.exists():
        lines.append(notes.read_text())
    (HERE / "README.md").write_text("\n".join(lines))


def _table(runs: list[dict[str, Any]]) -> list[str]:
    grouped = defaultdict(list)
    for run in runs:
        hidden = ("backbone", "seed", "size", "precision", "validation_share", "calibration_share")
        own = {key: value for key, value in run["options"].items() if key not in hidden}
        if run["options"].get("validation_share"):
            own["held out"] = run["options"]["validation_share"]
        grouped[run["method"], run["backbone"], json.dumps(own)].append(run)
    lines = [
        "| method | backbone | settings | image AUROC | pixel AUROC | AUPRO "
        "| fit CPU s | images/s | file MB | published |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    ordered = sorted(grouped.items(), key=lambda item: -_mean(item[1], "image_auroc"))
    for (method, backbone, own), same in ordered:
        settings = ", ".join(f"{key} {_short(value)}" for key, value in json.loads(own).items()) or "balanced"
        numbers = [_spread(same, key) for key in ("image_auroc", "pixel_auroc", "aupro")]
        costs = [f"{_mean(same, key):.{digits}f}" for key, digits in COSTS]
        published = PUBLISHED.get((same[0]["set"], method), "")
        lines.append("| " + " | ".join([method, backbone, settings, *numbers, *costs, published]) + " |")
    return [*lines, ""]


COSTS = (("fit_cpu_seconds", 0), ("images_per_cpu_second", 1), ("file_megabytes", 1))


def _short(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


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
        "How a map becomes one number matters as much as the flow. For the record; nothing above was chosen by it.\n",
        "| set | method | settings | max | top 0.3 % | top 3 % | top 10 % | mean |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        others = run["image_auroc_of_other_scores"]
        if others:
            numbers = [f"{value:.3f}".removeprefix("0") for value in others.values()]
            own = run["options"].get("preset") or run["options"].get("memory_share") or "balanced"
            lines.append("| " + " | ".join([run["set"], run["method"], str(own), *numbers]) + " |")
    return [*lines, ""]


def _race(race: dict[str, Any]) -> list[str]:
    lines = [
        f"## Race against {race['peer']}\n",
        f"ResNet-18 of the same file, screw at 256 px, {race['train_images']} training images, {race['epochs']} "
        f"epochs, batch {race['batch']}, {race['threads']} thread, in one run on {race['machine'].split(',')[0]}, cold "
        "start (our feature cache is empty and filling it counts). CPU seconds; the peer's validation and visualiser "
        "are off. Its file is a Lightning checkpoint; its bare weights are in brackets. AUROC is of 30 images after "
        "few epochs.\n",
        "| method | side | fit CPU s | against peer | score images/CPU s | against peer | peak MB | file MB | AUROC |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    peers = {result["method"]: result for result in race["results"] if result["side"] == "anomalib"}
    for result in race["results"]:
        peer = peers[result["method"]]
        rate = result["images"] / result["score_cpu_seconds"]
        peer_rate = peer["images"] / peer["score_cpu_seconds"]
        bare = f" ({result['weights_only_megabytes']:.0f})" if result["side"] == "anomalib" else ""
        cells = [
            result["method"],
            result["side"],
            f"{result['fit_cpu_seconds']:.1f}",
            f"{peer['fit_cpu_seconds'] / result['fit_cpu_seconds']:.1f}x",
            f"{rate:.1f}",
            f"{rate / peer_rate:.1f}x",
            f"{result['peak_megabytes']:.0f}",
            f"{result['file_megabytes']:.0f}{bare}",
            f"{result['image_auroc']:.3f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


if __name__ == "__main__":
    main()
