"""The status that is read from the files that tasks write."""

import json

import pytest

from monolith_tf.distribute.task import Task
from monolith_tf.launch import status as status_lib
from monolith_tf.launch.states import TaskState

_CLUSTER = {"chief": ("c:1",), "ps": ("p:1",), "worker": ("w:1",)}
_PIDS = {"chief": 1, "ps-0": 2, "worker-0": 3}


class Clock:
    now = 50.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def status(tmp_path, clock):
    return status_lib.Status(tmp_path, batch_size=100, clock=clock)


@pytest.fixture
def states():
    tasks = [
        Task(kind=kind, index=0, cluster=_CLUSTER) for kind in ("chief", "ps", "worker")
    ]
    return {task.name: TaskState(task, "running", restarts=0) for task in tasks}


@pytest.fixture
def write(tmp_path):
    (tmp_path / "cluster").mkdir()

    def to(name, **values):
        (tmp_path / "cluster" / f"{name}.json").write_text(json.dumps(values))

    return to


def test_tasks_that_have_told_nothing(status, states):
    assert status.chief(_PIDS) is None
    assert status.rows(states, _PIDS) == [
        status_lib.Row(name, "starting", None, None, 0) for name in states
    ]


def test_what_tasks_tell(status, states, write):
    chief = {"pid": 1, "state": "running", "step": 7, "examples_per_sec": 123.4}
    write("chief", **chief)
    write("ps-0", pid=2, state="serving")
    states["ps-0"].restarts = 2
    assert status.chief(_PIDS) == chief
    assert status.rows(states, _PIDS)[:2] == [
        status_lib.Row("chief", "running", 7, 123.4, 0),
        status_lib.Row("ps-0", "serving", None, None, 2),
    ]


def test_what_a_former_process_told_counts_for_nothing(status, states, write):
    write("chief", pid=99, state="done", step=7)
    assert status.chief(_PIDS) is None
    assert status.rows(states, _PIDS)[0].state == "starting"
    states["chief"].state = "waiting"
    states["ps-0"].state = "lost"
    shown = [row.state for row in status.rows(states, {"worker-0": 3})]
    assert shown == ["restarting", "lost", "starting"]


def test_the_speed_of_a_worker(status, states, write, clock):
    def look(**values):
        write("worker-0", pid=3, state="serving", **values)
        row = status.rows(states, _PIDS)[2]
        return row.steps, row.examples_per_sec

    assert look(counter=1, examples=1000) == (10, None)
    clock.now += 2
    assert look(counter=2, examples=1600) == (16, 300.0)
    clock.now += 1
    assert look(counter=2, examples=1600) == (16, 300.0)
    clock.now += 1
    assert look(counter=3, examples=1600) == (16, 0.0)
    # It has restarted.
    clock.now += 2
    assert look(counter=1, examples=50) == (0, None)


class TestMetricsTail:
    def test_only_what_is_new(self, tmp_path):
        path = tmp_path / "metrics.jsonl"
        path.write_text('{"step": 1}\n')
        tail = status_lib.MetricsTail(path)
        assert tail.read() == []
        with path.open("a") as file:
            file.write('{"step": 2}\n{"step": 3}\n{"ste')
        assert tail.read() == [{"step": 2}, {"step": 3}]
        with path.open("a") as file:
            file.write('p": 4}\n')
        assert tail.read() == [{"step": 4}]
        assert tail.read() == []

    def test_a_file_that_is_not_there_yet(self, tmp_path):
        tail = status_lib.MetricsTail(tmp_path / "metrics.jsonl")
        assert tail.read() == []
        (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
        assert tail.read() == [{"step": 1}]

    def test_a_file_that_is_cut_back(self, tmp_path):
        path = tmp_path / "metrics.jsonl"
        path.write_text('{"step": 1}\n{"step": 2}\n')
        tail = status_lib.MetricsTail(path)
        path.write_text('{"step": 1}\n')
        assert tail.read() == []
        with path.open("a") as file:
            file.write('not json\n{"step": 2}\n')
        assert tail.read() == [{"step": 2}]
