"""A cluster's parameter servers write a whole checkpoint while its worker trains."""

import os

import pytest

from monolith_tf.testing import small_job
from monolith_tf.testing.cluster_processes import ClusterProcesses
from monolith_tf.training import checkpoint_dir

pytestmark = [
    pytest.mark.slow,
    pytest.mark.distributed,
    pytest.mark.timeout(300),
]

_LIVE = """
from monolith_tf.models import dcn
from monolith_tf.training import run

run.LIVE_BYTES = 0


class Live(dcn.DCN):
    \"\"\"Makes even a small store one that is written while training goes on.\"\"\"

    Params = dcn.DCNParams
"""


def test_whole_checkpoints_do_not_stop_the_worker(tmp_path, monkeypatch):
    config = small_job.write(tmp_path / "job")
    (tmp_path / "live.py").write_text(_LIVE)
    text = config.read_text().replace("name: dcn", "class: live:Live")
    config = tmp_path / "config.yaml"
    config.write_text(text.replace("deterministic: true", "deterministic: false"))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    model_dir = tmp_path / "model"
    deltas = "trainer.checkpoint.delta_every=11"
    with ClusterProcesses(config, model_dir, deltas, ps=2) as cluster:
        cluster.start()
        codes = cluster.wait_all()
        assert not any(codes.values()), (codes, cluster.log("chief"))
    checkpoints = checkpoint_dir.CheckpointDir(model_dir / "checkpoints")
    live = [c for c in checkpoints.whole() if len(c.own_layers) == 2]
    assert live
    for checkpoint in live:
        # The copy holds all rows; the tail what changed while it was written.
        copied, tail = (small_job.rows(layer) for layer in checkpoint.own_layers)
        assert len(copied) > 50
        assert tail
        tables = checkpoint.manifest["embedding"]["tables"]
        num_rows = sum(table["counters"]["rows"] for table in tables)
        assert len(small_job.rows(*checkpoint.own_layers)) == num_rows
