"""Pages that the site makes from the repository: a reference page for each room, and the pages of the benchmarks."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
ROOMS = sorted(path.parent.name for path in (ROOT / "src" / "dracones").glob("*/__init__.py"))
THIN = {"cli"}  # verbs, whose reference is `dracones VERB --help`
BENCHMARKS = ROOT / "benchmarks"


def benchmark_pages() -> list[Path]:
    """Every page of the benchmarks, the overview first; sources that pages are made from are left out."""
    made = [path for path in sorted(BENCHMARKS.glob("*/*.md")) if path.name not in {"page.md", "notes.md"}]
    return [BENCHMARKS / "README.md", *made]


def reference(room: str) -> str:
    """The public names of a room, from its docstrings."""
    # A detector's verbs stand in its bases by family.
    inherited = "      inherited_members: true\n" if room == "detectors" else ""
    return f"# dracones.{room}\n\n::: dracones.{room}\n    options:\n      show_root_heading: false\n{inherited}"


def on_config(config: Any) -> Any:
    """Append the generated pages to the navigation."""
    rooms = [{f"dracones.{room}": f"reference/{room}.md"} for room in ROOMS if room not in THIN]
    pages = [path.relative_to(ROOT).as_posix() for path in benchmark_pages()]
    config.nav = [*config.nav, {"Reference": [{"dracones": "reference/index.md"}, *rooms]}, {"Benchmarks": pages}]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages themselves."""
    names = ("detectors.create", "detectors.load", "detectors.Detector", "methods.methods")
    links = "\n".join(f"- [`dracones.{name.split('.')[1]}`][dracones.{name}]" for name in names)
    top = f"# dracones\n\n`import dracones` gives these; the rooms hold the rest.\n\n{links}\n"
    files.append(File.generated(config, "reference/index.md", content=top))
    for room in ROOMS:
        if room not in THIN:
            files.append(File.generated(config, f"reference/{room}.md", content=reference(room)))
    for path in benchmark_pages():
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), content=path.read_text()))
    return files
