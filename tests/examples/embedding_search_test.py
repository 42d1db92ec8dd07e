"""Runs `examples/embedding_search.py` on made-up rows."""

import importlib.util
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location(
    "embedding_search", _ROOT / "examples" / "embedding_search.py"
)
embedding_search = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(embedding_search)

_FIELDS = (
    "user", "item", "daytime", "weekday", "isweekend",
    "homework", "cost", "weather", "country", "city",
)  # fmt: skip


def _result(search, setting, seed, sizes, parameters, auc, search_auc=None):
    return embedding_search.Result(
        search, setting, seed, sizes, parameters, auc, search_auc
    )


def test_the_table_has_a_line_for_each_setting_and_the_sizes_of_each_seed():
    results = [
        _result("one width", 4, 1, {"a": 4, "b": 4}, 800, 0.9),
        _result("L", 0.001, 1, {"a": 4, "b": 0}, 300, 0.8, 0.7),
        _result("one width", 4, 2, {"a": 4, "b": 4}, 800, 0.9),
        _result("L", 0.001, 2, {"a": 1, "b": 2}, 1400, 0.9, 0.8),
    ]
    lines = embedding_search.table(results).splitlines()
    assert "| one width | 4 | 8 | 800 | 0.90000 ± 0.00000 |  |" in lines
    # Deviations of two numbers 0.1 apart: 0.1 / sqrt(2).
    assert "| L | 0.001 | 3.5 | 850 | 0.85000 ± 0.07071 | 0.75000 ± 0.07071 |" in lines
    assert "| search | penalty | seed | a | b |" in lines
    assert "| L | 0.001 | 1 | 4 | 0 |" in lines
    assert "| L | 0.001 | 2 | 1 | 2 |" in lines
    assert lines[-1] == "Seeds: 1, 2."


def test_a_search_that_kept_nothing_has_a_line_without_a_model():
    results = [
        _result("one width", 4, 1, {"a": 4}, 400, 0.9),
        _result("L", 0.1, 1, {"a": 0}, 0, None, 0.5),
    ]
    lines = embedding_search.table(results).splitlines()
    assert "| L | 0.1 | 0 | 0 |  | 0.50000 |" in lines
    assert "| L | 0.1 | 1 | 0 |" in lines


@pytest.fixture
def data(tmp_path):
    """Rows whose label follows the item; a city for each row number below 5."""
    rng = np.random.default_rng(0)
    for split in ("train", "valid", "test"):
        columns = {name: rng.integers(0, 3, 256) for name in _FIELDS}
        columns["city"] = np.arange(256) % 5
        columns["label"] = (columns["item"] == 1).astype(np.float32)
        pq.write_table(pa.table(columns), tmp_path / f"{split}.parquet")
    return tmp_path


@pytest.mark.slow
def test_what_is_found_is_trained_from_its_config(data, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    output = tmp_path / "out.md"
    folder = tmp_path / "runs"
    options = {"data": data, "folder": folder, "output": output}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    for short in ("trainer.max_steps=2", "trainer.summaries=false"):
        arguments += ["--set", short]
    arguments += ["--layers", "SimpleNasV2Layer", "--penalties", "0.01"]
    embedding_search.main([*arguments, "--widths"])
    text = output.read_text()
    assert text in capsys.readouterr().out
    assert output.with_suffix(".png").stat().st_size > 1000
    # 9 fields of 3 values and one of 5, each 16 wide.
    assert "| one width | 16 | 160 | 512 |" in text
    config = yaml.safe_load((folder / "SimpleNasV2Layer_0.01_1.yaml").read_text())
    assert {table["name"]: table["dim"] for table in config["tables"]} == {
        # The first 16 of 17 entries, for 0 to 15 columns, reach 0.9.
        name: 15
        for name in _FIELDS
    }
    search = config["model"]["blocks"][0]
    assert search == {"name": "search", "inputs": list(_FIELDS), "join": "concat"}
