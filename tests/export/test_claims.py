"""What is said to export has a measured file behind it."""

import json
from pathlib import Path

from dracones.export.claims import MEASURED

RECORD = Path(__file__).parents[2] / "benchmarks" / "export" / "race.json"


def test_every_claim_is_in_the_record_and_within_the_tolerance():
    rows = json.loads(RECORD.read_text())["rows"]
    assert {name.split(",")[0] for name in rows} == set(MEASURED)
    for row in rows.values():
        assert max(row[f"difference_{count}"] for count in (1, 7, 64)) <= 1e-5
        assert all(row[f"verdicts_{count}"] == 1 for count in (1, 7, 64))
