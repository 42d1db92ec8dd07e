"""Jobs on a topic whose workers read it, against one process, with some killed."""

import os
import sys

import pytest

from monolith_tf.distribute import exits
from monolith_tf.testing import small_job
from monolith_tf.testing.cluster_processes import ClusterProcesses
from tests.data.stream import brokers
from tests.experiment import stream_test

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def broker():
    with brokers.running() as running:
        yield running


class Job(stream_test.Job):
    """The counting job on a topic, in a cluster."""

    def cluster(self, *overrides, until="end", ps=1, workers=2, **stream):
        """Returns the cluster, not started."""
        return ClusterProcesses(
            self.config,
            self.folder / "model",
            *self.overrides(until, **stream),
            *overrides,
            ps=ps,
            workers=workers,
        )

    def train_in_cluster(self, *overrides, code=exits.DONE, **more):
        """Trains; returns what the chief says."""
        with self.cluster(*overrides, **more) as cluster:
            cluster.start()
            assert cluster.wait("chief") == code, cluster.log("chief")
            return cluster.log("chief")

    def progress(self):
        return small_job.last(self.folder / "model").manifest["state"]["progress"]


@pytest.fixture
def job(tmp_path, broker, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*sys.path, str(tmp_path)]))
    return Job(tmp_path, broker)


def test_each_message_is_trained_on_once_and_counted(job):
    job.send(100, bad=(31, 62))
    job.train_in_cluster("data.on_bad_row=skip", ps=2)
    assert job.updates() == [float(row not in (31, 62)) for row in range(100)]
    assert job.records("train")[-1]["examples"] == 98
    assert job.records("data")[-1]["train/bad_rows"] == 2
    last = job.records("stream")[-1]
    assert (last["lag"], last["messages"]) == (0, 100)
    assert job.progress()["stream"]["offsets"] == {"0": 50, "1": 50}
