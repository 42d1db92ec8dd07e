"""A whole job that scores each batch before it trains on it."""

import json

import numpy as np
import pyarrow.parquet as pq

from monolith_tf.experiment import estimator
from monolith_tf.testing import small_job

_BATCH = 64  # Of the small job.


def _train(config, folder, steps, window):
    job = estimator.Estimator(
        config,
        f"model_dir={folder}",
        "trainer.mode=progressive",
        "trainer.epochs=null",
        f"trainer.max_steps={steps}",
        "trainer.eval_every_epochs=null",
        f"trainer.eval_every_steps={window}",
        "data.shuffle_buffer=0",
        "data.eval=[]",
        "metrics=[auc, log_loss]",
    )
    job.train()
    return job


def _windows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["phase"] == "eval"]


def test_a_batch_is_scored_by_the_model_before_it(tmp_path):
    config = small_job.write(tmp_path)
    _train(config, tmp_path / "a", 6, 1)
    # The sixth batch, scored by an evaluation after the fifth step.
    rows = pq.read_table(tmp_path / "train.parquet").slice(5 * _BATCH, _BATCH)
    pq.write_table(rows, tmp_path / "sixth.parquet")
    _train(config, tmp_path / "b", 5, 1)
    job = estimator.Estimator(
        config,
        f"model_dir={tmp_path}/b",
        f"data.eval={tmp_path}/sixth.parquet",
        "metrics=[auc, log_loss]",
    )
    expected = job.evaluate("eval")
    found = _windows(tmp_path / "a")[5]
    assert found["step"] == 6
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


def test_a_window_holds_the_batches_since_the_one_before_also_after_a_resume(tmp_path):
    config = small_job.write(tmp_path)
    _train(config, tmp_path / "one", 7, 1)
    _train(config, tmp_path / "three", 3, 3)
    _train(config, tmp_path / "three", 7, 3)
    one = [line["loss"] for line in _windows(tmp_path / "one")]
    three = _windows(tmp_path / "three")
    assert [line["step"] for line in three] == [3, 6, 7]
    expected = [np.mean(one[:3]), np.mean(one[3:6]), one[6]]
    np.testing.assert_allclose([line["loss"] for line in three], expected, rtol=1e-5)


def test_the_run_ends_with_the_data(tmp_path):
    config = small_job.write(tmp_path, rows=100)
    _train(config, tmp_path / "a", 50, 1)
    assert [line["step"] for line in _windows(tmp_path / "a")] == [1, 2]
