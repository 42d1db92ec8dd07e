"""Tests of a job with only numbers, which has no embedding table."""

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from monolith_tf.cli import main
from monolith_tf.cli import predict
from monolith_tf.experiment import estimator
from monolith_tf.testing import small_job

CONFIG = """\
model_dir: {folder}/model
data: {{train: {folder}/rows.parquet, test: {folder}/rows.parquet, batch_size: 20}}
features:
  - {{name: height, kind: dense}}
labels: [tall]
model:
  blocks:
    - {{name: deep, layer: Dense, inputs: [all], args: {{units: 1}}}}
  heads: [{{label: tall, inputs: [deep]}}]
trainer: {{epochs: 8, optimizer: {{name: adam, learning_rate: 0.1}}, summaries: false}}
metrics: [auc]
export: {{verify_rows: 0}}
"""


@pytest.fixture
def config(tmp_path):
    height = np.random.default_rng(0).normal(size=200).astype(np.float32)
    rows = {"height": height, "tall": (height > 0).astype(np.int64)}
    parquet.write_table(pa.table(rows), tmp_path / "rows.parquet")
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(folder=tmp_path), encoding="utf-8")
    return path


def test_it_trains_goes_on_and_is_exported(config, tmp_path):
    estimator.Estimator(config).train()
    job = estimator.Estimator(config, "trainer.epochs=9")
    job.train()
    assert small_job.last(tmp_path / "model").manifest["step"] == 90
    assert job.evaluate("test")["tall/auc"] == 1
    predictions = np.concatenate([batch["tall"] for batch in job.predict("test")])
    heights = parquet.read_table(tmp_path / "rows.parquet")["height"].to_numpy()
    # One weight: the predictions are a sigmoid of the heights.
    logits = np.log(predictions / (1 - predictions))
    fitted = np.polyval(np.polyfit(heights, logits, 1), heights)
    np.testing.assert_allclose(logits, fitted, atol=1e-3)
    output = tmp_path / "predicted.parquet"
    arguments = ["predict", job.export_saved_model(), "--input"]
    arguments += [tmp_path / "rows.parquet", "--output", output]
    predict.run(main.parse(["monolith-tf", *map(str, arguments)]))
    predicted = parquet.read_table(output)["tall"].to_numpy()
    np.testing.assert_allclose(predicted, predictions, atol=1e-5)
