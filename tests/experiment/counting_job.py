"""A job whose model counts how often each row was trained on.

Its only weights are embeddings of one number, from 0, that each training raises by 1.
"""

import gc
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from monolith_tf.experiment import estimator as estimator_lib
from monolith_tf.testing import examples

_CONFIG = """\
model_dir: {folder}/model
seed: 1
data: {{train: "{folder}/days/*.{ending}", batch_size: 7, shuffle_buffer: 0}}
features:
  - {{name: row, kind: id}}
labels: [click]
default_table:
  dim: 1
  initializer: {{name: zeros}}
  optimizer: {{name: sgd, learning_rate: 1.0}}
model: {{class: "counting_model:Count"}}
trainer:
  epochs: 1
  steps_per_loop: 3
  log_every_steps: 1
  summaries: false
  optimizer: sgd
"""


MODEL = """\
import tensorflow as tf
import monolith_tf as mt


class Count(mt.Model):
    def __init__(self, params=None):
        super().__init__()

    def model_fn(self, inputs, mode):
        count = tf.reduce_sum(inputs.concat(), 1)  # [batch]
        loss = None if mode is mt.Mode.PREDICT else -tf.reduce_sum(count)
        predictions = {"click": count}
        return mt.EstimatorSpec(mode=mode, predictions=predictions, loss=loss)
"""


class Job:
    """The counting job over files of a folder.

    Args:
      folder: Where all of it is.
      ending: Of the files, which says their format.
    """

    def __init__(self, folder, ending="parquet"):
        self.folder, self._ending = folder, ending
        self.num_rows = self._num_files = 0
        (folder / "days").mkdir()
        (folder / "counting_model.py").write_text(MODEL)
        self.config = folder / "config.yaml"
        self.config.write_text(_CONFIG.format(folder=folder, ending=ending))

    def add(self, num_rows, piece=13):
        """Writes a file that follows those there are."""
        path = self.folder / "days" / f"{self._num_files}.{self._ending}"
        rows = np.arange(self.num_rows, self.num_rows + num_rows)
        table = pa.table({"row": rows, "click": (rows % 2).astype(np.float32)})
        if self._ending == "parquet":
            pq.write_table(table, path, row_group_size=piece)
        elif self._ending.startswith("tfrecord"):
            options = "GZIP" if self._ending.endswith("gz") else ""
            examples.write(path, table.to_pylist(), options)
        else:
            with pa.output_stream(path) as stream:  # Compressed as the name says.
                csv.write_csv(table, stream)
        self.num_rows += num_rows
        self._num_files += 1

    def train(self, *overrides):
        estimator_lib.Estimator(self.config, *overrides).train()
        gc.collect()

    def records(self, phase):
        text = (self.folder / "model" / "metrics.jsonl").read_text()
        records = [json.loads(line) for line in text.splitlines()]
        return [record for record in records if record["phase"] == phase]

    def counts(self):
        """How often each row was trained on, in the order of the files."""
        job = estimator_lib.Estimator(
            self.config, f"data.test={self.folder}/days/*.{self._ending}"
        )
        return np.concatenate([b["click"] for b in job.predict("test")])

    def assert_trained(self, times):
        assert self.counts().tolist() == [times] * self.num_rows
        assert self.records("train")[-1]["examples"] == times * self.num_rows
