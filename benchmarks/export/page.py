"""The tables of docs/deployment.md, made of `race.json`, `fresh.json`, `precision.json` and `peer.json`."""

from typing import Any

from benchmarks import records
from benchmarks.provenance import ROOT

PAGE = ROOT / "docs" / "deployment.md"
RACE, FRESH = (ROOT / "benchmarks" / "export" / f"{name}.json" for name in ("race", "fresh"))
_BATCHES = (1, 7, 64)


def written(page: str, record: dict[str, Any]) -> str:
    """The page with the table of `race.json`."""
    return between(page, "benchmarks/export", table(record))


def with_precision(page: str, record: dict[str, Any]) -> str:
    """The page with the table of `precision.json`."""
    return between(page, "benchmarks/export/precision", precision_table(record))


def with_peer(page: str, record: dict[str, Any]) -> str:
    """The page with the table of `peer.json`."""
    return between(page, "benchmarks/export/peer", peer_table(record))


def between(page: str, mark: str, text: str) -> str:
    """The page with a text between a mark and the end after it."""
    start, end = f"<!-- {mark} -->\n\n", "\n<!-- end -->"
    before, rest = page.split(start)
    return before + start + text + end + rest.split(end, 1)[1]


def table(record: dict[str, Any]) -> str:
    """One line a method, as Markdown."""
    starts = records.read(FRESH)["rows"] if FRESH.exists() else {}
    lines = [
        "| method | onnxruntime: difference | verdicts | OpenVINO: difference | speed, 1 image | speed, 32 | MB "
        "| export, CPU s | first verdict, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in record["rows"].items():
        if "refused" in row:
            lines.append(f"| {name} | refused: {row['refused']} | | | | | | | |")
            continue
        cells = [
            f"{max(row[f'difference_{count}'] for count in _BATCHES):.1e}",
            f"{min(row[f'verdicts_{count}'] for count in _BATCHES):.0%}",
            _openvino(row),
            *[f"{row[f'speed_{count}']:.2f}" for count in (1, 32)],
            f"{row['megabytes']:.1f}",
            f"{row['export_cpu_seconds']:.0f}" if "export_cpu_seconds" in row else "not measured",
            _first_verdict(starts.get(name, {})),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _first_verdict(row: dict[str, Any]) -> str:
    """CPU seconds from the start of a process without torch, the network's own left out."""
    found = row.get("onnx", {}).get("without_network_cpu_seconds")
    return "not measured" if found is None else f"{found:.2f}"


def _openvino(row: dict[str, Any]) -> str:
    if "openvino" in row:
        return "refused: other scores" if "its own check" in row["openvino"] else "refused: OpenVINO cannot run it"
    found = [row[f"openvino_{count}"] for count in _BATCHES]
    return f"{max(found):.1e}" if all(isinstance(each, float) for each in found) else "not measured"


def precision_table(record: dict[str, Any]) -> str:
    """One line a method and precision, as Markdown."""
    lines = [
        "| method | precision | MB (float32) | speed, 1 image | speed, 32 | scores: median, largest | of their spread "
        "| maps, largest | verdicts changed | above the threshold: before, after |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in record["rows"].items():
        for precision in ("fp16", "int8"):
            found = row[precision]
            if "refused" in found:
                lines.append(f"| {name} | {precision} | refused: {found['refused']} | | | | | | | |")
                continue
            change = found["change"]
            cells = [
                f"{found['megabytes']:.1f} ({row['megabytes']:.1f})",
                *[f"{found[f'speed_{count}']:.2f}" for count in (1, 32)],
                f"{_percent(change['score_median'])}, {_percent(change['score_largest'])}",
                f"{change['score_noise']:.2g}",
                "none" if change["map_largest"] is None else _percent(change["map_largest"]),
                f"{change['verdicts']} of {change['images']}",
                f"{change['alarms_before']}, {change['alarms_after']}",
            ]
            lines.append(f"| {name} | {precision} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%"


def peer_table(record: dict[str, Any]) -> str:
    """One line a side and file, as Markdown."""
    lines = [
        "| file | photographs | scores: median, largest difference in spreads | verdicts changed |",
        "|---|---|---|---|",
    ]
    for side, files in record["files"].items():
        for kind, row in files.items():
            if "failed" in row:
                lines.append(f"| {side}: {kind} | failed: {row['failed']} | | |")
                continue
            off = f"{row['median_in_spreads']:.2g}, {row['largest_in_spreads']:.2g}"
            lines.append(f"| {side}: {kind} | {row['photographs']} | {off} | {row['verdicts_changed']} |")
    return "\n".join(lines) + "\n"
