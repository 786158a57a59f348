import base64
import html.parser
import json
import re

import numpy as np
import pytest

from dracones.metrics import Estimate
from dracones.report import Picture, Report, Tile, image_picture, map_picture, score_histogram
from dracones.report.html import breakable, cell, winners

EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"


class Page(html.parser.HTMLParser):
    """Checks that tags nest, and gathers what a browser would fetch or run."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr", "wbr"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.sources, self.text, self.events = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href"):
                self.sources.append(value)
            if name.startswith("on"):
                self.events.append(name)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def full_report(name="a name"):
    report = Report(name, subtitle=name)
    report.verdict(name, level="bad", points=[name, "second"])
    report.key_number(name, Estimate(0.5, 0.4, 0.6))
    picture = image_picture(np.zeros((3, 120, 100)), alt=name)
    section = report.section(name)
    section.text(name, "another").note(name, level="warning").code(name)
    section.figure(score_histogram({name: [1.0, 2.0]}), name).figure(picture, name)
    section.table([{name: name, "AUROC": Estimate(0.9, 0.8, 1.0)}, {name: "x", "AUROC": 0.2}], caption=name)
    section.tiles([Tile(picture, name, [name], flagged=True, second=picture), Tile(picture, "b", flagged=False)], name)
    section.grid({name: [picture, map_picture(np.eye(3))]}, [name, "b"], name)
    report.section("second")
    report.section("third")
    report.provenance(model=name, versions={"torch": name})
    return report


def test_the_page_needs_nothing_but_itself():
    page = Page(full_report().to_html())
    assert page.tags.count("html") == page.tags.count("main") == 1
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert page.sources
    assert all(source.startswith(("data:image/", "#s")) for source in page.sources)
    assert "url(" not in full_report().to_html()
    assert "@import" not in full_report().to_html()


def test_every_word_given_is_escaped_wherever_it_stands():
    report = full_report(EVIL)
    page = Page(report.to_html())
    assert "script" not in page.tags
    assert page.events == []
    assert "".join(page.text).count(EVIL) >= 15
    for source in page.sources:
        if source.startswith("data:image/svg+xml"):
            assert b"<script>" not in base64.b64decode(source.split(",")[1])


def test_verdict_comes_first_and_is_told_in_more_than_colour():
    text = full_report().to_html().split("<body>")[1]
    assert text.index('class="verdict bad"') < text.index("key-numbers") < text.index("<h2>")
    assert "✕ Verdict" in text
    for level, sign in (("good", "✓"), ("warning", "!")):
        report = Report("r")
        report.verdict("fine", level=level)
        assert f"{sign} Verdict" in report.to_html()


def test_it_is_fit_for_a_phone_and_says_what_it_may_load():
    text = full_report().to_html()
    assert 'name="viewport" content="width=device-width, initial-scale=1"' in text
    assert "default-src 'none'; img-src data:" in text
    assert '<html lang="en">' in text
    assert all('alt="' in tag for tag in re.findall(r"<img[^>]*>", text))


def test_contents_lead_to_the_sections():
    page = Page(full_report().to_html())
    anchors = [source[1:] for source in page.sources if source.startswith("#")]
    assert len(anchors) == 3
    assert all(f'id="{anchor}"' in full_report().to_html() for anchor in anchors)
    assert "<nav" not in Report("short").to_html()


def test_neighbouring_figures_share_a_row():
    report, picture = Report("r"), Picture(b"<svg/>", "image/svg+xml", 10, 10)
    report.section("s").figure(picture).figure(picture).text("between").figure(picture)
    assert report.to_html().count('<div class="figures">') == 2


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        (None, 3, "–"), (float("nan"), 3, "–"), (0.12345, 3, "0.123"), (np.float32(0.5), 2, "0.50"),
        (1234567, 3, "1,234,567"), (np.int64(12), 3, "12"), (1.5e-7, 3, "1.5e-07"), (12345678.9, 3, "1.23e+07"),
        (0.0, 3, "0.000"), (False, 3, "no"),
        (np.bool_(True), 3, "yes"), ({"a": 1, "b": 0.5}, 1, "a: 1, b: 0.5"), ([1, 2], 1, "1, 2"), ("as is", 1, "as is"),
        (float("inf"), 3, "inf"),
    ],
)  # fmt: skip
def test_cells(value, digits, shown):
    assert cell(value, digits) == shown


def test_best_values_are_bold_ties_included():
    rows = [{"m": 0.91234}, {"m": Estimate(0.91231, 0.9, 1.0)}, {"m": 0.5}, {"m": None}, {"m": float("nan")}]
    assert winners(rows, "m", {"m": "largest"}, 3) == {0, 1}
    assert winners(rows, "m", {"m": "smallest"}, 3) == {2}
    assert winners(rows, "m", {}, 3) == set()
    report = Report("r")
    report.section("s").table(rows[:3], best={"m": "largest"})
    assert re.findall(r"<strong>(.*?)</strong>", report.to_html()) == ["0.912", "0.912"]


def test_empty_tables_and_missing_keys_are_shown():
    report = Report("r")
    report.section("s").table([]).table([{"a": 1}, {"b": 2}], columns=["a", "b"])
    assert Page(report.to_html()).text.count("–") == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.verdict("x", level="fatal"), "level must be one of good, warning, bad, neutral; got 'fatal'"),
        (lambda r: r.section("s").note("x", level="red"), "got 'red'"),
        (lambda r: r.section("s").table([{"a": 1}], best={"b": "largest"}), r"best names the columns \['b'\]"),
        (lambda r: r.section("s").grid({"row": []}, ["a"]), r"each row needs 1 pictures.*\['row'\] have not"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(Report("r"))


def test_json_twin_holds_the_numbers_in_full_and_no_bytes(tmp_path):
    report = full_report()
    report.section("numbers").table([{"x": 0.1 + 0.2, "y": np.float32(0.5), "z": float("nan"), "e": Estimate(1, 0, 2)}])
    twin = json.loads(report.save_json(tmp_path / "r.json").read_text())
    assert twin == json.loads(json.dumps(report.to_json()))
    assert twin["verdict"]["level"] == "bad"
    table = twin["sections"][-1]["blocks"][0]
    assert table["rows"] == [{"x": 0.1 + 0.2, "y": 0.5, "z": None, "e": {"value": 1, "low": 0, "high": 2}}]
    figure = next(block for block in twin["sections"][0]["blocks"] if block["kind"] == "figure")
    assert figure["picture"]["numbers"]["groups"]["a name"]["count"] == 2
    assert "base64" not in (tmp_path / "r.json").read_text()


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "r.html"
    report = full_report()
    assert report.write(tmp_path / "new" / "r") == path
    assert path.stat().st_mode & 0o044
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    report.section("more")
    with pytest.raises(OSError, match="No space left"):
        report.write(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["r.html"]


def test_a_long_name_breaks_behind_its_signs():
    assert "a_<wbr>long_<wbr>name" in full_report("a_long_name").to_html()
    assert breakable("part_7/a-<b>.png") == "part_<wbr>7/<wbr>a-<wbr>&lt;b&gt;.png"
