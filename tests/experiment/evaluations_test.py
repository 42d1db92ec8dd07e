"""At which steps a job evaluates."""

import json

from monolith_tf.experiment import estimator
from monolith_tf.testing import small_job


def test_steps_and_epochs_both_count(tmp_path):
    path = small_job.write(tmp_path, rows=640)  # Of batches of 64.
    estimator.Estimator(path, "trainer.eval_every_steps=4").train()
    lines = (tmp_path / "model" / "metrics.jsonl").read_text().splitlines()
    steps = [r["step"] for r in map(json.loads, lines) if r["phase"] == "eval"]
    assert steps == [4, 8, 10, 12, 16, 20]
