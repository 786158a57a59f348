"""How results are kept: JSON that stays small and can be read as a table.

    python -m benchmarks.records FILE ...       # writes files anew in this form

What fits a line stands in one, so that a list of measurements is a line each; numbers keep the digits that mean
something.
"""

import argparse
import json
from pathlib import Path
from typing import Any

WIDTH = 160


def write(path: Path, record: Any, *, digits: int = 6) -> None:
    """Write a record, its floats rounded to `digits` significant digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text(rounded(json.loads(json.dumps(record)), digits)) + "\n", encoding="utf-8")


def read(path: Path) -> Any:
    """A record as it was written."""
    return json.loads(path.read_text(encoding="utf-8"))


def rounded(value: Any, digits: int) -> Any:
    """The same value, with the floats in it to so many significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {key: rounded(each, digits) for key, each in value.items()}
    return [rounded(each, digits) for each in value] if isinstance(value, list) else value


def text(value: Any, depth: int = 0) -> str:
    """JSON with a line for whatever fits one."""
    flat = json.dumps(value, ensure_ascii=False)
    if depth + len(flat) <= WIDTH or not isinstance(value, dict | list) or not value:
        return flat
    inner = "\n" + " " * (depth + 1)
    if isinstance(value, list):
        return f"[{inner}{f',{inner}'.join(text(each, depth + 1) for each in value)}\n{' ' * depth}]"
    parts = (f"{json.dumps(key, ensure_ascii=False)}: {text(each, depth + 1)}" for key, each in value.items())
    return f"{{{inner}{f',{inner}'.join(parts)}\n{' ' * depth}}}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--digits", type=int, default=6)
    arguments = parser.parse_args()
    for path in arguments.files:
        write(path, read(path), digits=arguments.digits)


if __name__ == "__main__":
    main()
