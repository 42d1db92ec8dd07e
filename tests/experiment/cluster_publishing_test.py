"""A cluster that publishes while it trains, also after one of it was killed."""

import json

import pytest

from monolith_tf.testing.cluster_processes import ClusterProcesses
from tests.experiment import clicking_job

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.slow,
    pytest.mark.timeout(900),
]


def _updates(model_dir):
    log = model_dir / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("}")]
    return sum(r.get("updates", 0) for r in records if r["phase"] == "publish")


def test_what_is_served_is_what_the_cluster_has_after_a_server_was_killed(tmp_path):
    job = clicking_job.Job(tmp_path)
    job.train("trainer.max_steps=10")
    version = job.export()
    model_dir = tmp_path / "model"
    path = job.write(100_000, users=100, name="more")
    with clicking_job.serving(version) as address:
        publish = [
            f"data.train={path}",
            "data.batch_size=4",  # So that it takes its time.
            "trainer.checkpoint_every_secs=1000",
            *job.publish_to([address]),
        ]
        with ClusterProcesses(job.config, model_dir, *publish, ps=2) as cluster:
            cluster.start()
            cluster.wait_until(lambda: _updates(model_dir) >= 3)
            cluster.kill("ps-1")
            cluster.wait("chief")
        ahead = clicking_job.state(address)
        assert ahead["step"] > 14
        publish.append("trainer.max_steps=14")
        with ClusterProcesses(job.config, model_dir, *publish, ps=2) as cluster:
            cluster.start()
            codes = cluster.wait_all()
            assert not any(codes.values()), cluster.log("chief")
        back = clicking_job.state(address)
        assert back["step"] == 14
        assert len(back["rows"]) < len(ahead["rows"])
        with clicking_job.serving(job.export()) as fresh:
            assert back == clicking_job.state(fresh)
