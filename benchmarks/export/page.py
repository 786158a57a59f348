"""The table of docs/deployment.md, made of `race.json`."""

from typing import Any

from benchmarks.provenance import ROOT

PAGE = ROOT / "docs" / "deployment.md"
START, END = "<!-- benchmarks/export -->\n\n", "\n<!-- end -->"
_BATCHES = (1, 7, 64)


def written(page: str, record: dict[str, Any]) -> str:
    """The page with the record's table between the two marks."""
    before, rest = page.split(START)
    return before + START + table(record) + END + rest.split(END, 1)[1]


def table(record: dict[str, Any]) -> str:
    """One line a method, as Markdown."""
    lines = [
        "| method | onnxruntime: difference | verdicts | OpenVINO: difference | speed, 1 image | speed, 32 | MB "
        "| export, CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in record["rows"].items():
        if "refused" in row:
            lines.append(f"| {name} | refused: {row['refused']} | | | | | | |")
            continue
        cells = [
            f"{max(row[f'difference_{count}'] for count in _BATCHES):.1e}",
            f"{min(row[f'verdicts_{count}'] for count in _BATCHES):.0%}",
            _openvino(row),
            *[f"{row[f'speed_{count}']:.2f}" for count in (1, 32)],
            f"{row['megabytes']:.1f}",
            f"{row['export_cpu_seconds']:.0f}" if "export_cpu_seconds" in row else "not measured",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _openvino(row: dict[str, Any]) -> str:
    if "openvino" in row:
        return f"refused: {row['openvino']}"
    found = [row[f"openvino_{count}"] for count in _BATCHES]
    return f"{max(found):.1e}" if all(isinstance(each, float) for each in found) else "not measured"
