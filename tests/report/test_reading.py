"""What `write_table` wrote is read as it was meant."""

import pytest

from dracones.report import read_table, write_table

ROWS = [
    {"path": "=1+2.png", "score": 0.1 + 0.2, "is_anomaly": True, "reason": None},
    {"path": 'ü,"\n.png', "score": None, "is_anomaly": None, "reason": "cut off"},
]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_typed_tables_come_back_as_they_were(tmp_path, kind):
    pytest.importorskip("pyarrow")
    assert list(read_table(write_table(tmp_path / f"t.{kind}", ROWS))) == ROWS


def test_csv_comes_back_as_text(tmp_path):
    first, second = read_table(write_table(tmp_path / "t.csv", ROWS))
    assert first == {"path": "=1+2.png", "score": "0.30000000000000004", "is_anomaly": "true", "reason": None}
    assert second == {"path": 'ü,"\n.png', "score": None, "is_anomaly": None, "reason": "cut off"}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.txt", "", r"tables are \.csv, \.jsonl, \.parquet"),
        ("t.csv", "path,score\na.png,1\nb.p", r"t\.csv, row 2: 1 fields for 2 columns; was it cut off\?"),
        ("t.csv", "path,score,path\n", "several columns named 'path'"),
        ("t.jsonl", '{"path": "a"}\n{"pa', r"t\.jsonl, line 2 is not JSON"),
        ("t.jsonl", "[1]\n", "line 1: expected an object"),
        ("t.parquet", "no parquet", "is not Parquet, or damaged"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=said):
        list(read_table(tmp_path / name))
    with pytest.raises(FileNotFoundError, match=r"no table at .*none\.csv"):
        list(read_table(tmp_path / "none.csv"))


def test_a_spreadsheets_mark_and_empty_lines_are_passed_over(tmp_path):
    (tmp_path / "t.csv").write_text("\ufeffpath,score\na.png,1\n\n", encoding="utf-8")
    assert list(read_table(tmp_path / "t.csv")) == [{"path": "a.png", "score": "1"}]
