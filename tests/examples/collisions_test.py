"""Runs `examples/collisions.py` on made-up ratings."""

import importlib.util
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location(
    "collisions", _ROOT / "examples" / "collisions.py"
)
collisions = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(collisions)


@pytest.fixture
def data(tmp_path):
    """Users 0 to 9, two of them sharing a row, and movies that share none."""
    rng = np.random.default_rng(0)
    for split in ("train", "valid", "test"):
        users, movies = np.arange(200) % 10, np.arange(200) // 10
        columns = {
            "user": users,
            "user_folded": np.minimum(users, 8),
            "movie": movies,
            "movie_folded": movies + 100,
            "rating": rng.integers(1, 6, 200),
        }
        pq.write_table(pa.table(columns), tmp_path / f"{split}.parquet")
    return tmp_path


def test_ids_and_rows_are_counted(data):
    assert collisions.counts(data, "user") == ("user", 10, 9)
    assert collisions.counts(data, "movie") == ("movie", 20, 20)


def test_the_table_takes_the_difference_seed_by_seed():
    scores = {"a row per id": (0.8, 0.9), "colliding ids": (0.79, 0.87)}
    results = {
        name: {
            seed: [{"liked/auc": 0.1}, {"liked/auc": auc}]
            for seed, auc in zip((3, 5), of_seeds, strict=True)
        }
        for name, of_seeds in scores.items()
    }
    lines = collisions.table(results, [("user", 200, 150)]).splitlines()
    assert "| user | 200 | 150 | 25.00% |" in lines
    assert "| 3 | 0.80000 | 0.79000 | 0.01000 |" in lines
    assert "| 5 | 0.90000 | 0.87000 | 0.03000 |" in lines
    # The variance of two values is half of their squared difference.
    assert lines[-1].endswith(
        "| 0.85000 ± 0.07071 | 0.83000 ± 0.05657 | 0.02000 ± 0.01414 |"
    )


@pytest.mark.slow
def test_it_runs_and_goes_on_where_it_was(data, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    output = tmp_path / "out.md"
    options = {"data": data, "folder": tmp_path / "runs", "output": output}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    for short in ("epochs=1", "summaries=false"):
        arguments += ["--set", f"trainer.{short}"]
    collisions.main([*arguments, "--seeds", "1", "2"])
    text = output.read_text()
    assert text in capsys.readouterr().out
    assert output.with_suffix(".png").stat().st_size > 1000
    output.unlink()
    collisions.main([*arguments, "--seeds", "1", "2"])
    assert output.read_text() == text
