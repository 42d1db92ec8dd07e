"""Dense features of integers that float32 would round."""

import pathlib
import tempfile

import numpy as np
import pyarrow as pa
import tensorflow as tf
from pyarrow import csv
from pyarrow import parquet

from monolith_tf import testing
from monolith_tf.cli import main
from monolith_tf.experiment import estimator

_CONFIG = """\
model_dir: {folder}/model
data:
  train: {folder}/train.{format}
  test: {folder}/train.{format}
  batch_size: 16
features:
  - {{name: time, kind: dense, transform: zscore}}
labels: [click]
model: {{name: dcn, params: {{label: click, hidden_units: [], num_cross_layers: 1}}}}
trainer: {{epochs: 1, summaries: false, optimizer: {{name: sgd, learning_rate: 1.0}}}}
metrics: []
export: {{verify_rows: 0}}
"""
_TIMES = 1_700_000_000 + np.arange(50)


class LargeNumbersTest(testing.TestCase):
    def _trained(self, format_):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        table = pa.table({"time": _TIMES, "click": (_TIMES % 50 > 20).astype(int)})
        self.data = self.folder / f"train.{format_}"
        {"csv": csv.write_csv, "parquet": parquet.write_table}[format_](
            table, self.data
        )
        path = self.folder / "config.yaml"
        path.write_text(_CONFIG.format(folder=self.folder, format=format_))
        job = estimator.Estimator(path)
        job.train()
        return job

    def _check(self, format_):
        job = self._trained(format_)
        predicted = np.concatenate([batch["click"] for batch in job.predict("test")])
        path = job.export_saved_model(self.folder / "export")
        served = tf.saved_model.load(str(path)).signatures["serving_default"](
            time=tf.constant(_TIMES, tf.int64)
        )["click"]
        output = self.folder / "out.parquet"
        command = ["monolith-tf", "predict", path, "--input", self.data]
        command += ["--output", output, "--verbose"]
        self.assertEqual(main.main(main.parse([*map(str, command)])), 0)
        written = parquet.read_table(output)["click"].to_numpy()
        # One cross layer makes logits quadratic in what `zscore` gives.
        logits = np.log(predicted / (1 - predicted.astype(np.float64)))
        z = (np.arange(50) - 24.5) / np.arange(50).std()
        fitted = np.polyval(np.polyfit(z, logits, 2), z)
        self.assertAllClose(logits, fitted, atol=1e-4)
        self.assertGreater(np.ptp(logits), 0.1)
        for other in (served, written):
            self.assertAllClose(np.reshape(other, [-1]), predicted, rtol=1e-6)

    def test_parquet(self):
        self._check("parquet")

    def test_csv(self):
        self._check("csv")
