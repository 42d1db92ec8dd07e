"""Which checkpoints the evaluator of a cluster scores."""

import json
import shutil

from monolith_tf.config import load
from monolith_tf.experiment import estimator
from monolith_tf.experiment import side_car
from monolith_tf.testing import small_job


def _steps(folder):
    lines = (folder / "model/evaluator/metrics.jsonl").read_text().splitlines()
    return [record["step"] for record in map(json.loads, lines)]


def test_checkpoints_are_scored_oldest_first_and_once(tmp_path, caplog):
    path = small_job.write(tmp_path, rows=640)
    options = (
        "trainer.epochs=1",
        "trainer.checkpoint_every_steps=2",
        "trainer.eval_every_epochs=null",
    )
    estimator.Estimator(path, *options).train()
    config = load.load_config(path, options)
    scorer = side_car.Scorer(config)
    assert scorer.score_next()
    assert scorer.score_next()
    checkpoints = tmp_path / "model" / "checkpoints"
    shutil.rmtree(checkpoints / "ckpt-00000008")
    assert scorer.score_next()
    assert "ckpt-00000008: removed before it was scored" in caplog.text
    # A restarted evaluator continues.
    scorer = side_car.Scorer(config)
    assert scorer.score_next()
    assert not scorer.score_next()
    assert _steps(tmp_path) == [2, 4, 6, 10]
    # A checkpoint that is written again for the same step is another one.
    manifest = checkpoints / "ckpt-00000006" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes())
    assert scorer.score_next()
    assert not scorer.score_next()
    assert _steps(tmp_path) == [2, 4, 6, 10, 6]


def test_that_some_may_be_missed_is_logged(tmp_path, caplog):
    path = small_job.write(tmp_path, rows=640)
    keep = "trainer.keep_checkpoints=2"
    every = ("trainer.checkpoint_every_steps=1", "trainer.eval_every_epochs=null")
    estimator.Estimator(path, keep, *every, "trainer.max_steps=2").train()
    scorer = side_car.Scorer(load.load_config(path, [keep]))
    while scorer.score_next():
        pass
    assert "may have been removed" not in caplog.text
    estimator.Estimator(path, keep, *every, "trainer.max_steps=6").train()
    assert scorer.score_next()
    assert "others may have been removed before" in caplog.text
    assert scorer.score_next()
    assert not scorer.score_next()
    assert _steps(tmp_path) == [1, 2, 5, 6]
