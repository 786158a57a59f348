"""Files that the pages for contributors name are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("CONTRIBUTING.md", "docs/architecture.md", "SECURITY.md")
_OWN_NAME = re.compile(r"NAME|VERB|FOLDER|SCRIPT")


def places(page: str) -> list[str]:
    """What stands in backticks and looks like a file or folder of the project."""
    words = re.findall(r"`([\w./{},-]+)`", (ROOT / page).read_text())
    return [word for word in words if re.search(r"\w/\w.*\.py$|\w/$|^\w+\.py$", word) and not _OWN_NAME.search(word)]


def exists(word: str) -> bool:
    """In the repository or in the package; a bare name somewhere in the package or its tests."""
    if (ROOT / word).exists() or (ROOT / "src/dracones" / word).exists():
        return True
    return any(any((ROOT / room).rglob(word.rstrip("/"))) for room in ("src/dracones", "tests"))


@pytest.mark.parametrize("page", PAGES)
def test_named_files_are_there(page):
    missing = [word for word in places(page) if not exists(word)]
    assert not missing, f"{page} names what is not there: {missing}"


def test_places_are_found_and_missed():
    assert "methods/registry.py" in places("CONTRIBUTING.md")
    assert exists("methods/registry.py")
    assert not exists("methods/guards/logit_scores.py")
