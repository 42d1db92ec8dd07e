"""Jobs that come back to their data train on each row as often as on any other.

The model counts: an embedding of one number, from zero, that each training raises by 1.
"""

import gc
import json
import os
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from pyarrow import csv

from monolith_tf.experiment import estimator as estimator_lib
from monolith_tf.testing.cluster_processes import ClusterProcesses

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


_OTHER_ENDINGS = ("csv", "csv.zst", "tfrecord", "tfrecord.gz")

_MODEL = """\
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


@pytest.fixture(autouse=True)
def _model(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)


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
        (folder / "counting_model.py").write_text(_MODEL)
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
            options = "GZIP" if self._ending.endswith("gz") else None
            with tf.io.TFRecordWriter(str(path), options) as writer:
                for row in rows.tolist():
                    writer.write(_example(row))
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


def _example(row):
    features = {
        "row": tf.train.Feature(int64_list=tf.train.Int64List(value=[row])),
        "click": tf.train.Feature(float_list=tf.train.FloatList(value=[row % 2])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString()


@pytest.mark.parametrize(
    "ending",
    [
        "parquet",
        "csv.gz",
        *(pytest.param(ending, marks=pytest.mark.slow) for ending in _OTHER_ENDINGS),
    ],
)
def test_a_file_a_day_is_trained_on_once_whatever_a_batch_is(tmp_path, ending):
    job = Job(tmp_path, ending)
    for size in (64, 64, 8):
        job.add(30)
        job.train(f"data.batch_size={size}")
    job.assert_trained(1)


def test_files_that_follow_within_the_first_of_several_epochs(tmp_path, caplog):
    job = Job(tmp_path)
    job.add(50)
    job.train("trainer.epochs=3", "trainer.max_steps=5")
    job.add(41)
    with caplog.at_level("INFO"):
        job.train("trainer.epochs=3", "data.batch_size=9", "trainer.max_steps=8")
    assert "1 files follow the train files of the checkpoint; going on at row 35" in (
        caplog.text
    )
    job.add(5)
    with caplog.at_level("INFO"):
        job.train("trainer.epochs=3")
    assert f"going on at row {35 + 3 * 9} of all" in caplog.text
    job.assert_trained(3)


def test_progressive_scores_a_row_before_it_is_trained_on(tmp_path):
    job = Job(tmp_path)
    progressive = ("trainer.mode=progressive", "trainer.eval_every_steps=1")
    for size in (64, 7, 20):
        job.add(30)
        job.train(*progressive, f"data.batch_size={size}")
    job.assert_trained(1)
    # The loss is the sum of what was predicted for rows.
    assert {record["loss"] for record in job.records("eval")} == {0.0}


@pytest.mark.parametrize("seed", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_stops_with_another_batch_order_or_seed_each_time(tmp_path, seed):
    draw = random.Random(seed)
    job = Job(tmp_path)
    for _ in range(draw.randint(1, 3)):
        job.add(draw.randint(1, 60), piece=draw.choice([1, 5, 100]))
    epochs, step = 2, 0
    stops = [draw.randint(1, 6) for _ in range(3)]
    for more in [*stops, 10_000]:
        step += more
        job.train(
            f"trainer.epochs={epochs}",
            f"trainer.max_steps={step}",
            f"data.batch_size={draw.choice([1, 2, 5, 16, 64])}",
            f"data.shuffle_buffer={draw.choice([0, 9, 20, 50])}",
            f"seed={draw.choice([1, 2])}",
        )
        step = min(step, job.records("train")[-1]["step"])
    job.assert_trained(epochs)


@pytest.mark.distributed
@pytest.mark.timeout(600)
def test_workers_go_on_at_the_next_row(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    job = Job(tmp_path)
    job.add(50)
    job.train("trainer.epochs=2", "trainer.max_steps=9", "data.shuffle_buffer=20")
    size = ("data.batch_size=12", "trainer.epochs=2")
    with ClusterProcesses(
        job.config, tmp_path / "model", *size, ps=1, workers=1
    ) as cluster:
        cluster.start()
        codes = cluster.wait_all()
        assert not any(codes.values()), (codes, cluster.log("chief"))
    job.assert_trained(2)
