"""The page of the monitor's figures, from its committed records.

python -m benchmarks.monitoring.page             # writes README.md
"""

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import records
from benchmarks.provenance import footer

HERE = Path(__file__).parent
PAGE = HERE / "README.md"


def page(martingale: dict[str, Any], promises: dict[str, Any]) -> str:
    """The text of the page."""
    parts = [
        "# Monitoring and calibrating anew, by simulation",
        *_false_alarms(martingale),
        *_delays(martingale),
        footer(martingale, "monitoring/simulate.py"),
        *_rounds(promises),
        *_noticed(promises),
        *_groups(promises),
        footer(promises, "monitoring/promises.py"),
    ]
    return "\n\n".join(parts) + "\n"


def _text(words: str) -> str:
    return textwrap.fill(" ".join(words.split()), 140)


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |".replace(" --- ", "---") for line in lines)


def _false_alarms(record: dict[str, Any]) -> list[str]:
    rows = [
        (
            cell["law"],
            cell["calibration"],
            cell["set"],
            f"{cell['alarms']} of {cell['streams']}",
            f"{cell['share']:.1%} ({cell['low']:.1%} to {cell['high']:.1%})",
        )
        for cell in record["false_alarms"]
    ]
    words = f"""Streams of {record["length"]:,} images in which nothing changes; the bound is {record["rate"]:.0%} for
        the whole stream. *Grows*: p-values among the calibration scores and all since, as a monitor has them; *fixed*:
        among a set that no longer grows, with the fee for it; *taken as it is*: without the fee, as p-values of a fixed
        calibration are often used."""
    header = ["law of the scores", "calibration scores", "set", "alarms", "share, with 95 % interval"]
    return ["## False alarms of a monitor", _text(words), _table(header, rows)]


def _delays(record: dict[str, Any]) -> list[str]:
    def images(cell: dict[str, Any], name: str) -> str:
        return f"more than {cell['images_watched']}" if cell[name] is None else str(cell[name])

    rows = [
        (
            cell["calibration"],
            cell["change_after"],
            cell["set"],
            images(cell, "median"),
            images(cell, "ninth_decile"),
            f"{cell['not_found']} of {cell['streams']}",
        )
        for cell in record["delays"]
    ]
    words = """Every score rises by half a standard deviation (normal scores), after so many images without a change.
        Alarms before the change are left out. With 100 calibration scores and a change at the first image the set
        fills with changed images before the evidence is there: what was not found early is not found at all."""
    header = ["calibration scores", "change after", "set", "images until the alarm, median", "nine in ten", "not found"]
    return ["## How late a change is found", _text(words), _table(header, rows)]


def _rounds(record: dict[str, Any]) -> list[str]:
    steps = len(next(iter(record["rounds"].values()))["mean"])
    rows = [
        (way, *(f"{rate:.1%}" for rate in cell["mean"]), f"{cell['worst_tenth'][-1]:.1%}")
        for way, cell in record["rounds"].items()
    ]
    words = f"""{record["rate"]:.0%} false alarms are promised; each round {record["confirmed_each_round"]} more good
        images are confirmed: of those that passed, or of an audit sample of {record["audit_share"]:.0%}, its false
        alarms included. False alarms realised, mean of {record["number"]:,} lines, and what one line in ten exceeds:"""
    header = ["confirmed", "at first", *(f"round {i}" for i in range(1, steps)), "one in ten, at last"]
    return ["## Confirmed images: the trap and the way out", _text(words), _table(header, rows)]


def _noticed(record: dict[str, Any]) -> list[str]:
    shares = ("cut_cut", "cut_unknown", "whole_cut", "whole_unknown")
    rows = [
        (f"{cell['rate']:.0%}", cell["old"], cell["confirmed"], *(f"{cell[share]:.1%}" for share in shares))
        for cell in record["noticed"]
    ]
    words = """How often a sample that was cut off at the old threshold is refused, or warned of (none is above, and
        that may be chance), and a whole one:"""
    kinds = ["cut: refused", "cut: warned of", "whole: refused", "whole: warned of"]
    return [_text(words), _table(["promised", "old images", "confirmed", *kinds], rows)]


def _groups(record: dict[str, Any]) -> list[str]:
    rows = [
        (
            cell["group"],
            f"{cell['one_threshold']:.2%}",
            f"{cell['own_threshold']:.2%} ± {1.96 * cell['standard_error']:.2%}",
        )
        for cell in record["groups"]
    ]
    words = f"""Three products whose scores have standard deviations 1, 2 and 4; 99 calibration images each;
        {record["rate"]:.0%} false alarms promised. Realised, with the 95 % interval of the simulation:"""
    header = ["product", "one threshold for all", "its own"]
    return ["## One threshold, or one a group", _text(words), _table(header, rows)]


def main() -> None:
    text = page(records.read(HERE / "martingale.json"), records.read(HERE / "promises.json"))
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
