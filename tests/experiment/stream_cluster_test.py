"""Jobs on a topic whose workers read it, against one process, with some killed."""

import json
import os
import random
import signal
import sys
import time

import numpy as np
import pyarrow as pa
import pytest

from monolith_tf.distribute import exits
from monolith_tf.testing import small_job
from monolith_tf.testing.cluster_processes import ClusterProcesses
from tests.data.stream import brokers
from tests.experiment import stream_test

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def broker():
    with brokers.Broker() as running:
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


@pytest.mark.slow
def test_rows_of_messages_are_trained_on_once_in_a_cluster_and_out_of_it(job, broker):
    rows = np.arange(240)
    for first in range(0, 240, 20):
        table = pa.table({"row": rows[first : first + 20], "click": [0.0] * 20})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        broker.send(job.topic, [sink.getvalue().to_pybytes()], first // 20 % 2)
    job.num_sent = 240
    job.train("trainer.max_steps=2", payload="arrow")
    job.train_in_cluster("trainer.max_steps=11", payload="arrow")
    assert job.progress()["step"] == 11
    job.train("trainer.max_steps=13", payload="arrow")
    assert sum(job.updates()) == job.progress()["examples"]
    job.train_in_cluster(payload="arrow")
    assert job.updates() == [1] * 240
    assert job.progress()["examples"] == 240


def test_a_worker_says_which_message_is_bad(job):
    job.send(100, bad=(31,))
    log = job.train_in_cluster(code=exits.FAILED)
    assert " cannot read its data: Topic " in log
    assert "partition 1, offset 15: no value in column `click`" in log


@pytest.mark.slow
def test_an_idle_cluster_can_be_interrupted(job):
    job.send(20)
    with job.cluster(until="never") as cluster:
        cluster.start()
        cluster.wait_until(lambda: _steps(job) >= 3)
        time.sleep(2)
        cluster.kill("chief", signal.SIGTERM)
        assert cluster.wait("chief") == 130, cluster.log("chief")
    assert job.updates() == [1] * 20


@pytest.mark.slow
def test_each_row_is_scored_once_before_it_is_trained_on(job, broker):
    for partition in range(2):
        rows = range(partition, 1000, 2)
        values = [json.dumps({"row": row, "click": 0}).encode() for row in rows]
        broker.send(job.topic, values, partition, times=range(1000, 6000, 10))
    job.num_sent = 1000
    progressive = ("trainer.mode=progressive", "trainer.eval_window_secs=1")
    with job.cluster(*progressive) as cluster:
        cluster.start()
        cluster.wait_until(lambda: _steps(job) >= 10)
        cluster.kill("worker-0")
        cluster.wait("worker-0")
        cluster.start("worker-0")
        assert cluster.wait("chief") == exits.DONE, cluster.log("chief")
    assert job.updates() == [1] * 1000
    windows = job.records("eval")
    late = windows[-1]["late_rows"]
    assert sum(window["rows"] for window in windows) + late == 1000
    assert {w["begin_secs"] for w in windows} == {1, 2, 3, 4, 5}


class Events:
    """Events of ids that come again and again, but once in a batch.

    Each partition has its own ids, in turn.
    """

    def __init__(self, job, broker, ids=40):
        self._job, self._broker, self._ids = job, broker, ids
        self.sent = [0, 0]

    def send(self, count):
        for partition in range(2):
            numbers = range(self.sent[partition], self.sent[partition] + count)
            rows = [2 * (number % self._ids) + partition for number in numbers]
            values = [json.dumps({"row": row, "click": 0}).encode() for row in rows]
            self._broker.send(self._job.topic, values, partition)
            self.sent[partition] += count

    def assert_trained(self, admit_after=1):
        job = self._job
        assert job.progress()["stream"]["offsets"] == {
            str(partition): sent for partition, sent in enumerate(self.sent)
        }
        assert job.progress()["examples"] == sum(self.sent)
        expected = {}
        for partition, sent in enumerate(self.sent):
            for number in range(self._ids):
                count = sent // self._ids + (number < sent % self._ids)
                expected[2 * number + partition] = count - admit_after + 1
        job.num_sent = 2 * self._ids
        assert job.updates() == [expected[row] for row in range(2 * self._ids)]
        rows = small_job.rows(small_job.last(job.folder / "model").embedding_dir)
        assert len(rows) == 2 * self._ids


def _steps(job):
    path = job.folder / "model" / "metrics.jsonl"
    return job.records("train")[-1]["step"] if path.exists() else 0


@pytest.mark.parametrize("admit_after", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_events_count_once_when_workers_are_killed(job, broker, admit_after):
    events, draw = Events(job, broker), random.Random(admit_after)
    end = {"0": 2000, "1": 2000}
    table = f"default_table.admit_after={admit_after}"
    events.send(500)
    with job.cluster(table, until=end) as cluster:
        cluster.start()
        for _ in range(2):
            step = _steps(job)
            events.send(300)
            cluster.wait_until(lambda step=step: _steps(job) > step + 30)
            time.sleep(draw.random())
            victim = f"worker-{draw.randrange(2)}"
            cluster.kill(victim)
            cluster.wait(victim)
            cluster.start(victim)
        events.send(2000 - events.sent[0])
        assert cluster.wait("chief") == exits.DONE, cluster.log("chief")
    events.assert_trained(admit_after)
    assert job.records("stream")[-1]["messages"] == 4000


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("admit_after", [1, 3])
def test_events_count_once_whatever_is_killed(job, broker, admit_after):
    events, draw = Events(job, broker), random.Random(admit_after)
    end = {"0": 4000, "1": 4000}
    options = (
        f"default_table.admit_after={admit_after}",
        "trainer.checkpoint_every_steps=40",
    )
    with job.cluster(*options, until=end, ps=2) as cluster:
        cluster.start()
        for victim in ("worker-0", "ps-1", "worker-1", "chief", "worker-0", "ps-0"):
            step = _steps(job)
            events.send(500)
            cluster.wait_until(lambda step=step: _steps(job) > step + 30)
            time.sleep(2 * draw.random())
            cluster.kill(victim)
            cluster.wait(victim)
            if victim.startswith("ps"):
                assert cluster.wait("chief") == exits.PS_LOST, cluster.log("chief")
                cluster.start("chief")
            cluster.start(victim)
        events.send(4000 - events.sent[0])
        assert cluster.wait("chief") == exits.DONE, cluster.log("chief")
    events.assert_trained(admit_after)
