"""The page of the robustness runs, from their records.

python -m benchmarks.robustness.page
"""

from pathlib import Path
from typing import Any

from benchmarks.records import read

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
RESULTS = HERE / "results"

_TITLE = """# Under damage and under attack

Fuzzers make a file from a seed alone, so that every one can be made again. *Silent*: accepted, and other numbers than
the whole file gives, or numbers that break the contract. *Bare*: an error that is no refusal or does not name the file.
*Crash*: the process died. Short runs of all of them stand in `tests/robustness`.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text("\n".join([_TITLE, *filter(None, (_fuzzers(), _backbones(), _promise()))]), encoding="utf-8")


def _record(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return read(path) if path.exists() else None


def _fuzzers() -> str:
    rows = [
        "| what | files | refused or said | read | silent | bare | crashes | slow | memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    models, images, cache = (_record(name) for name in ("model_files", "images", "cache_entries"))
    if models is not None:
        told = models["outcomes"]
        refused = told.get("refused", 0) + told.get("refused when scoring", 0)
        rows.append(
            f"| model files of {len(models['detectors'])} methods | {models['files']:,} | {refused:,} | "
            f"{sum(told.values()) - refused:,} | {len(models['silent'])} | {len(models['unclean'])} | 0 | "
            f"{len(models['slow'])} | {len(models['greedy'])} over 200 MB |"
        )
    if images is not None:
        told = images["outcomes"]
        refused = sum(count for what, count in told.items() if what.endswith("refused"))
        read_ = sum(count for what, count in told.items() if what.endswith("read"))
        rows.append(
            f"| images and arrays of {len(images['kinds'])} kinds | {images['files']:,} | {refused:,} | {read_:,} | "
            f"{len(images['silent'])} | {len(images['bare'])} | {len(images['crashed'])} | {len(images['slow'])} | "
            f"{len(images['greedy'])} over 64 MB |"
        )
    if cache is not None:
        told = cache["outcomes"]
        said = told.get("said and computed anew", 0)
        rows.append(
            f"| entries of the feature cache | {cache['entries']:,} | {said:,} | {sum(told.values()) - said:,} | "
            f"{len(cache['silent'])} | {len(cache['bare'])} | 0 | "
            f"{len(cache['slow'])} | {len(cache['greedy'])} over 64 MB |"
        )
    words = """
Model files that are *read* score as the whole file does (the seed left them as they were, or a forgery changed what no
score depends on), or are forgeries whose own scores bear out their threshold. Images that are *read* are mostly of
formats without a checksum, where a flipped bit is another picture and nothing can know, or damaged outside of it. Slow
is more than five CPU seconds for one file. No library spoke on the terminal while images were read.
"""
    return "\n".join([*rows, words])


def _backbones() -> str | None:
    record = _record("backbones")
    if record is None:
        return None
    told = ", ".join(f"{count} {what}" for what, count in sorted(record["outcomes"].items(), reverse=True))
    refused = [
        f"- {words.removeprefix('refused: ')}" for words in record["found"].values() if words.startswith("refused")
    ]
    return "\n".join(
        [
            "## Any timm name",
            "",
            f"{record['names']} names, one from each of as many families of timm {record['timm']}: {told}.",
            *([""] if refused else []),
            *refused,
            "",
        ]
    )


def _promise() -> str | None:
    record = _record("promise")
    if record is None:
        return None
    rows = [
        "## The promise, where it used to break",
        "",
        "A CIFAR-10 network (ResNet-20), fresh test images. The third column is what a threshold from the scores of "
        "learnt images would give,\nas it did before they were refused.",
        "",
        "| guard | promised | alarms, threshold from learnt images | such images now | alarms, from other images |",
        "|---|---|---|---|---|",
    ]
    for name, found in record["guards"].items():
        rows.append(
            f"| {name} | {found['promised']:.0%} | {found['alarms, had it been accepted']:.1%} | "
            f"{found['learnt images now'].partition(':')[0]} | "
            f"{found['alarms, calibrated on other images']:.1%} |"
        )
    copies = record["copies"]
    alarms = "no threshold: too few distinct images" if copies["alarms"] is None else f"{copies['alarms']:.1%} alarms"
    rows += [
        "",
        f"{copies['pictures']} pictures {copies['copies']} times each, split by the fit, {copies['promised']:.0%} "
        f"promised: {copies['calibration_images']} distinct images calibrate; {alarms}.",
        "",
    ]
    return "\n".join(rows)


if __name__ == "__main__":
    main()
