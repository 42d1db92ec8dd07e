"""Exports of a cluster's current values, while it trains."""

import pytest
from pyarrow import parquet

from monolith_tf.cli import servable
from monolith_tf.experiment import estimator
from monolith_tf.export import metadata
from monolith_tf.testing import small_job
from monolith_tf.testing.cluster_processes import ClusterProcesses

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.slow,
    pytest.mark.timeout(600),
]


def test_an_export_answers_as_the_checkpoint_of_its_step(tmp_path):
    config = small_job.write(tmp_path / "job")
    every = ("export.every_steps=16", "trainer.checkpoint_every_steps=16")
    model_dir = tmp_path / "model"
    with ClusterProcesses(config, model_dir, *every, ps=2, workers=2) as cluster:
        cluster.start()
        codes = cluster.wait_all()
        assert not any(codes.values()), (codes, cluster.log("chief"))
    exported = {metadata.read(p)["step"]: p for p in (model_dir / "export").iterdir()}
    assert len(exported) > 1
    assert min(exported) < max(exported) == small_job.last(model_dir).step
    rows = parquet.read_table(config.parent / "eval.parquet")
    answers = []
    for step, path in sorted(exported.items()):
        checkpoint = model_dir / "checkpoints" / f"ckpt-{step:08d}"
        job = estimator.Estimator(config, f"model_dir={model_dir}")
        alone = job.export_saved_model(tmp_path / str(step), checkpoint=checkpoint)
        found, expected = (servable.Servable(p).predict(rows) for p in (path, alone))
        assert found.equals(expected)
        assert metadata.read(path)["groups"] == metadata.read(alone)["groups"]
        answers.append(found)
    assert not answers[0].equals(answers[-1])
