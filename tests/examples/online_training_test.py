"""Runs `examples/online_training.py` on a few rows of Census-Income."""

import importlib.util
import pathlib

import numpy as np
import pyarrow.parquet as pq
import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location(
    "online_training", _ROOT / "examples" / "online_training.py"
)
online = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(online)


def test_negatives_are_sampled_and_rows_stand_in_order(tmp_path):
    source = _ROOT / "data" / "census_income" / "test.parquet"
    rows = pq.read_table(source)
    positives = sum("50000+." in text for text in rows["income_50k"].to_pylist())
    rate = online.write_split(source, tmp_path / "kept.parquet", 0.2)
    np.testing.assert_allclose(rate, positives / len(rows))
    kept = pq.read_table(tmp_path / "kept.parquet")
    labels = ["50000+." in text for text in kept["income_50k"].to_pylist()]
    assert sum(labels) == positives
    share = (len(kept) - positives) / (len(rows) - positives)
    np.testing.assert_allclose(share, 0.2, atol=0.01)
    years = kept["year"].to_numpy()
    assert (np.diff(years) >= 0).all()
    assert set(kept["sample_rate"].to_pylist()) == {0.2}


@pytest.mark.slow
def test_correction_brings_the_promise_back_to_what_is_observed(tmp_path, capsys):
    online.main(["--folder", str(tmp_path), "--output", str(tmp_path / "table.md")])
    text = (tmp_path / "table.md").read_text()
    assert text in capsys.readouterr().out
    (test,) = [line for line in text.splitlines() if line.startswith("| test")]
    plain, corrected = map(float, test.split("|")[4:6])
    assert plain > 2
    assert 0.8 < corrected < 1.25
