"""Learning rates that fall when a metric does, through a whole job."""

import json

import numpy as np
import pytest
import tensorflow as tf

from monolith_tf.experiment import estimator
from monolith_tf.testing import small_job
from monolith_tf.training import checkpoint_dir


def _evaluate_every(steps):
    return f"trainer.eval_every_steps={steps}", "trainer.eval_every_epochs=null"


def _scale(model_dir):
    found = checkpoint_dir.CheckpointDir(model_dir / "checkpoints").latest()
    reader = tf.train.load_checkpoint(str(found.path / "dense"))
    (name,) = (n for n in reader.get_variable_to_shape_map() if "rate_scale" in n)
    return float(reader.get_tensor(name))


def test_rates_fall_at_every_evaluation_without_a_better_value(tmp_path):
    config = small_job.write(tmp_path)
    # Only the first evaluation can be better by so much: two of three lower the rate.
    plateau = "{metric: loss, factor: 0.25, min_delta: 1000}"
    overrides = [f"trainer.reduce_on_plateau={plateau}", *_evaluate_every(5)]
    steps = "trainer.max_steps={}"
    estimator.Estimator(config, *overrides, steps.format(15)).train()
    np.testing.assert_allclose(_scale(tmp_path / "model"), 0.25**2)
    # A resumed job continues with the lowered rate.
    estimator.Estimator(config, *overrides, steps.format(20)).train()
    np.testing.assert_allclose(_scale(tmp_path / "model"), 0.25**3)


def test_a_rate_that_falls_to_nothing_trains_nothing(tmp_path):
    config = small_job.write(tmp_path)
    plateau = "{metric: loss, factor: 1.0e-30, min_delta: 1000}"
    overrides = [f"trainer.reduce_on_plateau={plateau}", *_evaluate_every(1)]
    # Moving means would change.
    overrides.append("model.params.batch_norm=false")
    job = estimator.Estimator(config, *overrides, "trainer.max_steps=6")
    job.train()
    lines = (tmp_path / "model" / "metrics.jsonl").read_text().splitlines()
    losses = [r["loss"] for r in map(json.loads, lines) if r["phase"] == "eval"]
    # The second evaluation is the first without a better value; the next step may
    # still add rows for new ids.
    assert losses[0] != losses[1]
    assert losses[3:] == pytest.approx([losses[3]] * 3, rel=1e-6)
