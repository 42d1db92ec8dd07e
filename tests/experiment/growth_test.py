"""A job whose tables start small and grow in the middle of long loops of steps."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monolith_tf.embedding.shard import row_blocks
from monolith_tf.embedding.shard import sizing
from monolith_tf.experiment import estimator

_BATCH = 64
_ROWS = 40 * _BATCH
_CONFIG = """\
model_dir: {folder}/model
data: {{train: {folder}/train.parquet, batch_size: 64}}
features: [{features}]
labels: [click]
tables: [{tables}]
model: {{name: dcn, params: {{label: click, num_cross_layers: 1, hidden_units: [4]}}}}
trainer: {{epochs: 1, steps_per_loop: 1000, log_every_steps: 1000}}
"""


@pytest.mark.parametrize(
    "dims", [(4, 9, 27), pytest.param(range(4, 28), marks=pytest.mark.slow)]
)
def test_every_id_of_a_long_loop_has_a_row(dims, tmp_path, monkeypatch):
    monkeypatch.setattr(sizing, "capacity", lambda *_: 64)
    monkeypatch.setattr(row_blocks, "_MOVED_BYTES", 1 << 14)
    rng = np.random.default_rng(0)
    columns = {
        f"f{dim}": rng.integers(0, 4 * _ROWS, _ROWS) + (dim << 40) * (dim % 2)
        for dim in dims
    }
    clicks = rng.integers(0, 2, _ROWS)
    pq.write_table(pa.table(columns | {"click": clicks}), tmp_path / "train.parquet")
    config = tmp_path / "config.yaml"
    config.write_text(
        _CONFIG.format(
            folder=tmp_path,
            features=", ".join(f"{{name: {name}, kind: id}}" for name in columns),
            tables=", ".join(f"{{name: f{dim}, dim: {dim}}}" for dim in dims),
        )
    )
    estimator.Estimator(config).train()
    lines = (tmp_path / "model" / "metrics.jsonl").read_text().splitlines()
    (*_, last) = [r for r in map(json.loads, lines) if r["phase"] == "tables"]
    for name, values in columns.items():
        found = {n: last[f"{name}/{n}"] for n in ("rows", "overflow", "dropped")}
        rows = len(np.unique(values))
        assert found == {"rows": rows, "overflow": 0, "dropped": 0}, name
