"""Tests of jobs on a topic of a real broker."""

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monolith_tf.data.stream import events
from monolith_tf.experiment import estimator as estimator_lib
from monolith_tf.training import loop
from tests.data.stream import brokers
from tests.data.stream import proxies
from tests.experiment import counting_job


@pytest.fixture(scope="module")
def broker():
    with brokers.Broker() as running:
        yield running


class Job(counting_job.Job):
    """The counting job on a topic."""

    def __init__(self, folder, broker, partitions=2):
        super().__init__(folder)
        self._broker = broker
        self.topic = broker.create(folder.name, partitions)
        self._partitions = partitions
        self.num_sent = 0

    def send(self, count, bad=(), time=None):
        """Sends the next rows, one after another to each partition.

        Args:
          count: How many.
          bad: Rows that get no label.
          time: Row -> its time in milliseconds, in the column `at` and the message.
        """
        values = [[] for _ in range(self._partitions)]
        times = [[] for _ in range(self._partitions)]
        for row in range(self.num_sent, self.num_sent + count):
            value = {"row": row, "click": row % 2} if row not in bad else {"row": row}
            if time is not None:
                value["at"] = time(row)
                times[row % self._partitions].append(time(row))
            values[row % self._partitions].append(json.dumps(value).encode())
        for partition, some in enumerate(values):
            self._broker.send(
                self.topic, some, partition, times=times[partition] or None
            )
        self.num_sent += count

    def send_all(self, values):
        """Sends the next rows as these values, half of them to each partition."""
        half = len(values) // 2
        self._broker.send(self.topic, values[:half], 0)
        self._broker.send(self.topic, values[half:], 1)
        self.num_sent += len(values)

    def overrides(self, until, **stream):
        given = {"brokers": self._broker.address, "topic": self.topic, "until": until}
        given |= {"max_wait": 0.1, **stream}
        return "data.train=[]", f"data.stream={json.dumps(given)}"

    def train(self, *overrides, until="end", **stream):
        super().train(*self.overrides(until, **stream), *overrides)

    def start(self, *overrides, until="end"):
        """Starts the job in a process of its own."""
        return subprocess.Popen(
            [
                sys.executable,
                *("-m", "monolith_tf", "train", str(self.config)),
                *self.overrides(until),
                *overrides,
            ],
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join([*sys.path, str(self.folder)])},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def has_log(self):
        """Returns whether the job has recorded a step."""
        path = self.folder / "model" / "metrics.jsonl"
        return path.exists() and bool(self.records("train"))

    def updates(self):
        """Returns how often each row sent was trained on."""
        path = self.folder / "rows.parquet"
        rows = np.arange(self.num_sent)
        pq.write_table(pa.table({"row": rows, "click": rows % 2.0}), path)
        job = estimator_lib.Estimator(
            self.config, f"data.train={path}", f"data.test={path}"
        )
        return np.concatenate([b["click"] for b in job.predict("test")]).tolist()


@pytest.fixture
def job(tmp_path, broker, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    return Job(tmp_path, broker)


def test_each_message_is_trained_on_once(job):
    job.send(100)
    job.train()
    assert job.updates() == [1] * 100
    assert job.records("train")[-1]["examples"] == 100
    last = job.records("stream")[-1]
    assert (last["lag"], last["messages"]) == (0, 100)
    assert "checkpoint_age_secs" not in last


def test_the_age_of_the_newest_checkpoint_is_recorded(job):
    job.send(100)
    job.train("trainer.checkpoint_every_steps=5", "trainer.max_steps=10")
    ages = [r.get("checkpoint_age_secs") for r in job.records("stream")]
    assert ages[:4] == [None] * 4
    assert all(0 <= age < 60 for age in ages[5:])
    (path,) = (job.folder / "model").rglob("ckpt-*10")
    os.utime(path, (1, 1))
    job.train("trainer.checkpoint_every_steps=100")
    assert job.records("stream")[-1]["checkpoint_age_secs"] > 1e6


def test_a_job_resumes_at_the_next_message(job):
    for batch_size in (7, 4, 30):
        job.send(50)
        job.train(f"data.batch_size={batch_size}")
    assert job.updates() == [1] * 150
    job.train()
    assert job.updates() == [1] * 150


def test_a_job_stops_at_a_step_and_resumes_there(job):
    job.send(100)
    for step in (1, 2, 5, 11):
        job.train(f"trainer.max_steps={step}")
    assert sum(job.updates()) == job.records("train")[-1]["examples"]
    job.train()
    assert job.updates() == [1] * 100


def test_progressive_scores_a_message_before_it_is_trained_on(job):
    job.send(100)
    job.train("trainer.mode=progressive", "trainer.eval_every_steps=4")
    assert job.updates() == [1] * 100
    assert job.records("eval")


def windows(job):
    return [(w["begin_secs"], w["rows"], w["late_rows"]) for w in job.records("eval")]


def test_progressive_scores_are_of_windows_of_event_time(job):
    job.send(180, time=lambda row: 1_600_000_000_000 + row * 1000)
    window = "trainer.eval_window_secs=50"
    job.train("trainer.mode=progressive", window, "metrics=[mse]")
    begins = range(1_600_000_000, 1_600_000_180, 50)
    assert windows(job) == [
        (b, n, 0) for b, n in zip(begins, (50, 50, 50, 30), strict=True)
    ]
    # A row that was not trained on yet has the prediction 0; half of the labels are 1.
    assert [w["click/mse"] for w in job.records("eval")] == [0.5] * 4
    assert job.updates() == [1] * 180


def test_windows_by_a_column_and_late_rows(tmp_path, broker, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    job = Job(tmp_path, broker, partitions=1)
    begin = 1_600_000_000_000

    def time(row):
        return begin + 1000 * (1 if row % 50 == 49 else row)

    job.send(200, time=time)
    progressive = ("trainer.mode=progressive", "trainer.eval_window_secs=50")
    job.train(*progressive, time_column="at")
    # Rows 49, 99, 149 and 199 are of the first window, which ends after 16 batches.
    assert windows(job) == [
        (begin / 1000 + 50 * k, rows, late)
        for k, (rows, late) in enumerate([(51, 0), (49, 0), (49, 1), (49, 2)])
    ]
    assert job.updates() == [1] * 200


def test_rows_without_a_time_are_trained_on(job):
    job.send(30, time=lambda row: 1_600_000_000_000 + row)
    job.send(20)
    job.train("trainer.mode=progressive", time_column="at")
    (last,) = job.records("eval")
    assert (last["rows"], last["untimed_rows"]) == (30, 20)
    assert job.updates() == [1] * 50


def test_messages_that_arrive_during_the_job_are_trained_on(job):
    job.send(10)

    def send():
        for _ in range(10):
            time.sleep(0.2)
            job.send(7)

    sender = threading.Thread(target=send)
    sender.start()
    job.train(until={"0": 40, "1": 40})
    sender.join()
    assert job.updates() == [1] * 80


def test_bad_messages_are_an_error_or_counted(job):
    job.send(100, bad=(31, 62))
    with pytest.raises(
        ValueError, match=r"partition [01], offset \d+: no value in col"
    ):
        job.train()
    job.train("data.on_bad_row=skip")
    assert job.updates() == [float(row not in (31, 62)) for row in range(100)]
    assert job.records("data")[-1]["train/bad_rows"] == 2


def test_rows_that_got_a_default_are_counted(job, broker):
    job.send(30, bad=(3, 8, 21))
    job.train("labels=[{name: click, default: 0}]")
    assert job.updates() == [1] * 30
    assert job.records("data")[-1]["train/defaults/click"] == 3


def test_another_topic_is_read_from_its_start(job, broker):
    job.send(30)
    job.train()
    job.topic = broker.create(f"{job.topic}-other", 2)
    job.send(20)
    job.train()
    assert job.updates() == [1] * 50


def test_a_topic_goes_on_where_the_job_left_it(job, broker):
    topics = [job.topic, broker.create(f"{job.topic}-other", 2)]
    for number in range(4):
        job.topic = topics[number % 2]
        job.send(20)
        job.train()
    assert job.updates() == [1] * 80


def test_messages_of_many_rows_are_trained_on_once(job, broker):
    rows = np.arange(60)
    for first in range(0, 60, 20):
        table = pa.table({"row": rows[first : first + 20], "click": [0.0] * 20})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        broker.send(job.topic, [sink.getvalue().to_pybytes()])
    job.num_sent = 60
    for step in (1, 4, 5):  # Within a message, with batches of 7 rows.
        job.train(f"trainer.max_steps={step}", payload="arrow")
    job.train(payload="arrow")
    assert job.updates() == [1] * 60


def test_a_schema_that_changes_within_the_topic_stops_the_job_and_loses_nothing(job):
    fields = [{"name": "row", "type": "int"}, {"name": "click", "type": "int"}]
    paths, schemas = [], []
    more = {"name": "more", "type": "string"}
    for number, own in enumerate([fields, [more, fields[1], fields[0]]]):
        schema = {"type": "record", "name": "R", "fields": own}
        paths.append(job.folder / f"{number}.avsc")
        paths[-1].write_text(json.dumps(schema))
        schemas.append(fastavro.parse_schema(schema))
    values = []
    for row in range(90):
        stream = io.BytesIO()
        stream.write(b"\0" + (1 + row // 60).to_bytes(4))
        cells = {"row": row, "click": row % 2, "more": "x"}
        fastavro.schemaless_writer(stream, schemas[row // 60], cells)
        values.append(stream.getvalue())
    job.send_all(values)
    common = {"payload": "avro", "schema": str(paths[0])}
    first = {"1": str(paths[0])}
    with pytest.raises(ValueError, match=r"offset \d+: the message has the schema 2"):
        job.train(**common, schema_ids=first)
    job.train(**common, schema_ids={**first, "2": str(paths[1])})
    assert job.updates() == [1] * 90
    assert job.records("train")[-1]["examples"] == 90


def test_a_topic_made_again_is_noticed_though_it_has_more_messages(job, broker):
    job.send(50)
    job.train()
    broker.admin.delete_topics([job.topic])[job.topic].result(10)
    broker.create(job.topic, 2)
    job.send(100)
    with pytest.raises(events.LostMessagesError, match="deleted and created again"):
        job.train()
    job.train(on_lost="skip")
    job.send(20)
    job.train()
    assert job.updates() == [1] * 170


@pytest.fixture
def cut_off(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    with proxies.running() as proxy:
        broker = brokers.Broker(proxy)
        with contextlib.closing(broker):
            yield Job(tmp_path, broker), proxy
            proxy.set_down(False)


def test_a_job_without_brokers_is_interrupted_and_resumes(cut_off):
    job, proxy = cut_off
    job.send(200)

    def stop():
        deadline = time.monotonic() + 120
        while not (job.has_log() and job.records("train")[-1]["examples"] == 200):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        proxy.set_down(True)
        time.sleep(3)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(loop.InterruptedRun):
        job.train("trainer.checkpoint_every_steps=10", until="never")
    stopper.join()
    proxy.set_down(False)
    job.send(100)
    job.train()
    assert job.updates() == [1] * 300


@pytest.mark.slow
def test_cut_connections_lose_and_repeat_no_row(cut_off):
    job, proxy = cut_off
    job.send(3000)
    is_over = threading.Event()

    def cut():
        draw = random.Random(3)
        while not is_over.wait(draw.uniform(0.05, 0.5)):
            proxy.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        job.train()
    finally:
        is_over.set()
        cutter.join()
    assert job.updates() == [1] * 3000


def test_an_idle_job_can_be_interrupted(job):
    job.send(20)
    timer = threading.Timer(6, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(loop.InterruptedRun):
        job.train(until="never")
    assert job.updates() == [1] * 20


@pytest.mark.timeout(280)
def test_a_job_killed_at_any_time_trains_on_each_message_once(job):
    draw = random.Random(5)
    end = {"0": 1500, "1": 1500}
    every = "trainer.checkpoint_every_steps=10"
    for _ in range(2):
        job.send(draw.randrange(300, 700))
        process = job.start(every, until=end)
        log = job.folder / "model" / "metrics.jsonl"
        size = log.stat().st_size if log.exists() else 0
        deadline = time.monotonic() + 120
        while not (log.exists() and log.stat().st_size > size):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(draw.random())
        process.kill()
        process.communicate()
    job.send(3000 - job.num_sent)
    process = job.start(every, until=end)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert job.updates() == [1] * 3000
    assert job.records("train")[-1]["examples"] == 3000
