"""Supervised processes, with small scripts in place of tasks."""

import json
import logging
import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest

from monolith_tf.distribute.task import Task
from monolith_tf.launch import guard
from monolith_tf.launch import local
from monolith_tf.training import job_lock

# The beginning of every fake task: its name, and the number of its start.
_HEAD = """\
import json, os, pathlib, signal, sys, time
config = json.loads(os.environ["TF_CONFIG"])
kind, index = config["task"]["type"], config["task"]["index"]
name = kind if kind == "chief" else f"{kind}-{index}"
folder = pathlib.Path(sys.argv[1])
start = len(list(folder.glob(f"{name}.start*")))
(folder / f".{name}").write_text(str(os.getpid()))
(folder / f".{name}").rename(folder / f"{name}.start{start}")
print(f"{name}: start {start}")
def until(name):
    while not (folder / name).exists():
        time.sleep(0.01)
"""


@pytest.fixture
def make(tmp_path):
    """Returns a cluster whose tasks run a script after `_HEAD`."""

    def build(script, *, ps=1, workers=1, evaluator=False, max_restarts=1):
        path = tmp_path / "task.py"
        path.write_text(_HEAD + textwrap.dedent(script))
        tasks = local.local_tasks(ps=ps, workers=workers, evaluator=evaluator)
        return local.LocalCluster(
            tasks,
            [sys.executable, str(path), str(tmp_path)],
            tmp_path / "model",
            max_restarts=max_restarts,
            poll_secs=0.01,
        )

    return build


def pids(folder):
    return [int(path.read_text()) for path in folder.glob("*.start*")]


def wait_until(condition, secs=20):
    deadline = time.monotonic() + secs
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def runs(pid):
    """Returns whether a process runs; a zombie does not."""
    try:
        status = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_tasks_have_free_loopback_ports_of_their_own():
    tasks = local.local_tasks(ps=2, workers=3, evaluator=True)
    assert [task.name for task in tasks] == [
        "chief",
        "ps-0",
        "ps-1",
        "worker-0",
        "worker-1",
        "worker-2",
        "evaluator-0",
    ]
    addresses = [task.address for task in tasks if task.address is not None]
    assert len(set(addresses)) == 6
    for address in addresses:
        host, _, port = address.rpartition(":")
        assert host == "127.0.0.1"
        with socket.socket() as probe:
            probe.bind((host, int(port)))
    assert len({task.to_tf_config() for task in tasks}) == 7
    for task in tasks:
        assert Task.from_env({"TF_CONFIG": task.to_tf_config()}) == task


def test_a_port_in_use_is_not_taken(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(local, "_PORTS", [port, port + 1, port + 2, port + 3])
        monkeypatch.setattr(local.random, "sample", lambda ports, count: ports)
        tasks = local.local_tasks(ps=1, workers=1, evaluator=False)
        assert f"127.0.0.1:{port}" not in [task.address for task in tasks]
        monkeypatch.setattr(local, "_PORTS", [port])
        with pytest.raises(OSError, match="There are no 3 free ports on this machine"):
            local.local_tasks(ps=1, workers=1, evaluator=False)


def test_a_job_that_goes_well(make, tmp_path):
    cluster = make("print(os.environ['TF_CONFIG'])", ps=2, evaluator=True)
    assert cluster.run().code == 0
    configs = []
    for name in ("chief", "ps-0", "ps-1", "worker-0", "evaluator-0"):
        first, config = cluster.log_tail(name)
        assert first == f"{name}: start 0"
        assert (tmp_path / "model" / "logs" / f"{name}.log").exists()
        configs.append(json.loads(config))
    assert all(config["cluster"] == configs[0]["cluster"] for config in configs)
    assert set(configs[0]["cluster"]) == {"chief", "ps", "worker"}


def test_a_job_that_trains_without_a_launcher_is_left_alone(make, tmp_path):
    cluster = make("")
    with (
        job_lock.held(tmp_path / "model"),
        pytest.raises(
            job_lock.JobRunsError,
            match=rf"already trains in \S+: process {os.getpid()} on ",
        ),
    ):
        cluster.run()
    assert not pids(tmp_path)
    assert cluster.run().code == 0


def test_what_dies_starts_again_at_its_address(make, caplog):
    caplog.set_level(logging.INFO, logger="absl")
    cluster = make(
        """
        print(config["cluster"][kind][index])
        if name == "worker-0":
            if start == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            (folder / "worker is back").touch()
        until("worker is back")
        """
    )
    assert cluster.run().code == 0
    log = (cluster.logs / "worker-0.log").read_text().splitlines()
    assert log[0] == "worker-0: start 0"
    assert log[2] == "worker-0: start 1"
    assert log[1] == log[3]
    assert cluster.log_tail("worker-0") == log[2:]
    assert (
        "worker-0 was killed by SIGKILL; it restarts in 1 s (1 of 1)."
        in caplog.messages
    )


def test_a_parameter_server_that_dies_takes_the_chief_along(make):
    cluster = make(
        """
        if name == "ps-0" and start == 0:
            until("ps-1.start0")
            (folder / "ps is dead").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "chief" and start == 0:
            until("ps is dead")
            sys.exit(75)
        if kind == "chief":
            (folder / "done").touch()
        until("done")
        """,
        ps=2,
    )
    assert cluster.run().code == 0
    assert cluster.log_tail("chief") == ["chief: start 1"]
    assert cluster.log_tail("ps-1") == ["ps-1: start 1"]
    assert cluster.log_tail("worker-0") == ["worker-0: start 0"]


def test_an_error_of_the_chief_ends_the_job(make, tmp_path):
    cluster = make(
        """
        if kind == "chief":
            until("worker-0.start0")
            sys.exit("error: no such file")
        time.sleep(100)
        """
    )
    outcome = cluster.run()
    assert outcome.code == 1
    assert outcome.message == "The chief ended with exit code 1."
    assert cluster.log_tail(outcome.culprit)[-1] == "error: no such file"
    assert not any(runs(pid) for pid in pids(tmp_path))


def test_the_tail_of_a_long_log(make):
    cluster = make("for number in range(10_000): print(number)")
    cluster.run()
    assert cluster.log_tail("chief", 3) == ["9997", "9998", "9999"]
    assert cluster.log_tail("nobody") == []


# A chief that checkpoints when it is asked to end; its servers must outlive it.
_CHECKPOINTS = """
if kind == "chief":
    def handler(number, frame):
        time.sleep(0.1)
        alive = [n for n in ("ps-0", "worker-0") if (folder / f"{n}.ended").exists()]
        (folder / "checkpoint").write_text(repr(alive))
        sys.exit(130)
    signal.signal(signal.SIGTERM, handler)
else:
    def handler(number, frame):
        (folder / f"{name}.ended").touch()
        sys.exit(143)
    signal.signal(signal.SIGTERM, handler)
(folder / f"{name}.ready").touch()
while True:
    time.sleep(0.1)
"""
_LAUNCHER = """\
import pathlib, sys
from monolith_tf.launch import guard
from monolith_tf.launch import local
folder = sys.argv[1]
tasks = local.local_tasks(ps=1, workers=1, evaluator=False)
command = [sys.executable, folder + "/task.py", folder]
job = local.LocalCluster(
    tasks, command, folder + "/model", max_restarts=1, poll_secs=0.01
)
sys.exit(job.run().code)
"""


@pytest.fixture
def launcher(tmp_path):
    """A launcher in a separate process, all of whose tasks are ready."""
    (tmp_path / "task.py").write_text(_HEAD + _CHECKPOINTS)
    process = subprocess.Popen([sys.executable, "-c", _LAUNCHER, str(tmp_path)])
    names = ("chief", "ps-0", "worker-0")
    wait_until(lambda: all((tmp_path / f"{n}.ready").exists() for n in names))
    yield process
    process.kill()
    process.wait()
    for pid in pids(tmp_path):
        if runs(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_checkpoints_and_ends_every_child(launcher, tmp_path, number):
    launcher.send_signal(number)
    assert launcher.wait(20) == 130
    assert (tmp_path / "checkpoint").read_text() == "[]"
    assert not any(runs(pid) for pid in pids(tmp_path))


def test_a_killed_launcher_leaves_nothing(launcher, tmp_path):
    launcher.kill()
    launcher.wait()
    wait_until(lambda: not any(runs(pid) for pid in pids(tmp_path)))
    # The chief ended before the others were asked to end.
    assert (tmp_path / "checkpoint").read_text() == "[]"


def test_a_launcher_that_ends_leaves_nothing_to_guard(monkeypatch):
    sent = []
    monkeypatch.setattr(os, "kill", lambda *signalled: sent.append(signalled))
    guard.main(["+ 7 chief", "- 7"])
    assert sent == []


def test_an_error_in_the_launcher_leaves_no_child(make, tmp_path, monkeypatch):
    cluster = make("time.sleep(100)")

    def fail(states, pids):
        if len(list(tmp_path.glob("*.start0"))) == 3:
            raise OSError("No space left on device")

    monkeypatch.setattr(cluster, "_watch", fail)
    with pytest.raises(OSError, match="No space left"):
        cluster.run()
    assert not any(runs(pid) for pid in pids(tmp_path))
