"""Tests of the benchmark `zoo`: our side trains the model of the case."""

import dataclasses
import json
import pathlib

import numpy as np
import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

_BENCHMARKS = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "benchmarks"
_ROWS = {"train": 20, "valid": 6}


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(_BENCHMARKS)


@pytest.fixture
def case(tmp_path, monkeypatch):
    import zoo

    config = yaml.safe_load(zoo._CONFIG.read_text())
    config["features"] = config["features"][:2]
    config["model"]["blocks"][1]["args"]["output_dims"] = [4, 3, 1]
    monkeypatch.setattr(zoo, "_CONFIG", tmp_path / "config.yaml")
    zoo._CONFIG.write_text(yaml.safe_dump(config))
    case = dataclasses.replace(zoo.make_case(tmp_path, str(tmp_path)), batch=8)
    assert case.features == ["user", "item"]
    for split, rows in _ROWS.items():
        row = np.arange(rows)
        table = {"user": 100 + row % 2, "item": 100 + row % 3, "label": row % 2}
        parquet.write_table(pa.table(table), tmp_path / f"{split}.parquet")
    return case


def test_ids_are_counted_from_0_in_both_splits(case):
    from zoo_sides import case as case_lib

    data = case_lib.read(case)
    assert data.sizes == [2, 3]
    for split, rows in (data.train, 20), (data.eval, 6):
        assert split.ids.dtype == np.int64
        assert split.labels.dtype == np.float32
        np.testing.assert_array_equal(split.ids[:, 1], np.arange(rows) % 3)
        np.testing.assert_array_equal(split.labels, np.arange(rows) % 2)


def test_our_side_trains_every_row_once_an_epoch(case, tmp_path):
    from zoo_sides import ours

    side = ours.Side(json.dumps(dataclasses.asdict(case)))
    for epoch in (1, 2):
        clock, cpu = side.time()
        assert clock > 0.0
        assert cpu > 0.0
        assert side._trainer._run.progress.step == 3 * epoch
        assert side._trainer._run.window.examples == 20 * epoch
    cross = 4 * (20 * 20 + 20) + (20 + 1)
    # No biases before batch normalization.
    deep = 20 * 4 + 2 * 4 + 4 * 3 + 2 * 3 + (3 + 1)
    assert side.parameters() == (2 + 3) * 10 + cross + deep
    side.predict(give=str(tmp_path / "found.npy"))
    found = np.load(tmp_path / "found.npy")
    assert found.shape == (6,)
    assert np.all((found > 0.0) & (found < 1.0))


def test_missing_data_is_said_to_be_missing(monkeypatch, tmp_path, capsys):
    import zoo

    monkeypatch.setattr("sys.argv", ["zoo.py", "--data", str(tmp_path)])
    with pytest.raises(SystemExit):
        zoo.main()
    message = capsys.readouterr().err
    assert f"{tmp_path}/train.parquet is missing" in message
    assert "scripts/prepare/frappe.py" in message
