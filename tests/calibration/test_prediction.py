"""Verdicts over a collection: one by one, and as a table."""

import sys

import numpy as np
import pytest

from dracones.calibration.prediction import Prediction, Verdict


def prediction(calibrated=True):
    verdicts = [
        Verdict(f"{i}.png", float(i), 0.5 / (i + 1) if calibrated else None, i > 1 if calibrated else None)
        for i in range(3)
    ]
    return Prediction.gather(verdicts, (), 1.5 if calibrated else None, 0.05)


def test_an_image_is_taken_by_its_place():
    found = prediction()
    assert found[0] == Verdict("0.png", 0.0, 0.5, False)
    assert found[-1] == list(found)[2]
    assert found[np.int64(1)].path == "1.png"
    for outside in (3, -4):
        with pytest.raises(IndexError, match=f"image {outside} of a prediction over 3"):
            found[outside]


def test_a_table_has_a_row_an_image():
    pandas = pytest.importorskip("pandas")
    table = prediction().to_dataframe()
    assert isinstance(table, pandas.DataFrame)
    assert list(table.columns) == ["path", "score", "p_value", "is_anomaly"]
    assert table.is_anomaly.tolist() == [False, False, True]
    assert list(prediction(calibrated=False).to_dataframe().columns) == ["path", "score"]


def test_without_pandas_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        prediction().to_dataframe()
