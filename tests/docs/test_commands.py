"""Every shell command that README.md and docs/ show is run as it stands, page by page, in a folder of small images.

Some things are added, for the sake of time alone: trained methods are fitted for one epoch, and on images of 64 pixels
where a page names no size; the default method on 128, weighed by few made defects. A block that cannot run here stands
after a comment that says why: `<!-- not run: ... -->`.
"""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs_world import make
from dracones.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN_ELSEWHERE = {"demo", "tests"}  # the README's two commands: tests/demo and .ci/run
BLOCK = re.compile(
    r"(?:<!--\s*(?P<mark>[^>]*?)\s*-->\n)?^```(?P<kind>bash|sh|console|shell)\n(?P<body>.*?)^```", re.M | re.S
)
UNTRAINED = {"patchcore", "padim", "energy", "msp"}


def commands(page: Path) -> Iterator[str]:
    """The commands of a page, continued lines joined."""
    for block in BLOCK.finditer(page.read_text()):
        mark = block["mark"] or ""
        if mark in RUN_ELSEWHERE or mark.startswith("not run: "):
            continue
        for line in block["body"].replace("\\\n", " ").splitlines():
            if line.strip() and not line.startswith("#"):
                yield line


def shortened(words: list[str]) -> list[str]:
    """A fit of seconds: one epoch, small images unless the page says how large."""
    if words[:1] != ["fit"]:
        return words
    if words[2].startswith("-"):  # fit DATA: the ensemble, which trains nothing
        return [*words, "--set", "size=[128,128]", "--set", "made_defects=20"]
    more = [] if words[1] in UNTRAINED else ["--set", "epochs=1"]
    sized = (
        any(word.startswith(("size=", "tile=")) for word in words) or "builtin:" in words[2] or "--classifier" in words
    )
    return [*words, *more, *([] if sized else ["--set", "size=[64,64]"])]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all pages share; a page may use what an earlier command of the same page wrote."""
    root = tmp_path_factory.mktemp("docs")
    make(root)
    return root


@pytest.fixture
def fashion(world: Path) -> None:
    """The model that the README's last command explains."""
    import dracones

    detector = dracones.create("glow", epochs=1, density={"steps": 1, "hidden": 4}, rule="likelihood")
    detector.fit(str(world / "FashionMNIST") + ":train").save(world / "fashion.safetensors")


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("fashion")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_run(
    page: Path, world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(world)
    monkeypatch.setenv("DRACONES_CACHE", str(world / "cache"))
    for command in commands(page):
        program, *words = shlex.split(command)
        assert program == "dracones", (
            f"{page.name}: only commands of dracones can be run here; mark the block: {command}"
        )
        monkeypatch.setattr(sys, "argv", [program, *shortened(words)])
        with pytest.raises(SystemExit) as end:
            main()
        allowed = {None, 0, 1} if "--fail-on-anomaly" in words else {None, 0}
        assert end.value.code in allowed, f"{page.name}: {command}\n{capsys.readouterr().err}"


def test_the_pages_hold_commands_to_run() -> None:
    assert sum(len(list(commands(page))) for page in PAGES) > 20
