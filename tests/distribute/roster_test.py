import json
import os
import socket
import subprocess
import sys
import time

import pytest

from monolith_tf.distribute import gathering
from monolith_tf.distribute import rivals
from monolith_tf.distribute import roster
from monolith_tf.distribute import sign_in
from monolith_tf.distribute.task import Task

_CLUSTER = {"chief": ("a:1",), "ps": ("p:2",), "worker": ("w:3", "x:4")}
_BEAT = 0.05


def _task(kind="chief", index=0):
    return Task(kind=kind, index=index, cluster=_CLUSTER)


@pytest.fixture(name="chief")
def _chief(tmp_path):
    signed_in = sign_in.SignedIn(tmp_path, _task(), beat_secs=_BEAT)
    yield signed_in
    signed_in.close()


def _write(model_dir, name, **values):
    """Writes the file of a fake task."""
    entry = {
        "nonce": f"nonce of {name}",
        "incarnation": "",
        "address": "",
        "host": "elsewhere",
        "pid": 17,
        "versions": roster.versions(),
        "counter": 0,
        "state": "serving",
        "message": "",
    }
    path = roster.folder(model_dir) / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(entry | values))


def _write_all(model_dir, incarnation, **changes):
    for task in _task().others():
        values = {"address": task.address, "incarnation": incarnation}
        _write(model_dir, task.name, **values | changes.get(task.kind, {}))


def _wait(model_dir, chief, timeout=0.3):
    return gathering.wait_for_all(
        model_dir, _task(), chief, timeout=timeout, poll_secs=0.01
    )


def test_a_file_is_refreshed_and_says_who(tmp_path, chief):
    first = roster.read(tmp_path, "chief")
    assert first["pid"] == os.getpid()
    assert first["address"] == "a:1"
    assert first["incarnation"] == chief.nonce
    deadline = time.monotonic() + 10
    while roster.read(tmp_path, "chief")["counter"] < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    chief.update(state="running")
    assert roster.read(tmp_path, "chief")["state"] == "running"
    assert [path.name for path in roster.folder(tmp_path).iterdir()] == ["chief.json"]


def test_values_that_change_are_asked_for(tmp_path):
    count = iter(range(1000))
    signed_in = sign_in.SignedIn(
        tmp_path, _task("ps"), beat_secs=_BEAT, latest=lambda: {"steps": next(count)}
    )
    deadline = time.monotonic() + 10
    while roster.read(tmp_path, "ps-0").get("steps", 0) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    signed_in.close(state="ended")
    assert roster.read(tmp_path, "ps-0")["state"] == "ended"


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_file_that_is_not_whole_is_none(tmp_path, text):
    assert roster.read(tmp_path, "chief") is None
    roster.folder(tmp_path).mkdir()
    (roster.folder(tmp_path) / "chief.json").write_text(text)
    assert roster.read(tmp_path, "chief") is None


def test_a_pulse_goes_by_change_not_by_what_it_sees_first():
    pulse = roster.Pulse(silent_secs=0.05)
    assert not pulse.look(None)
    entry = {"nonce": "n", "counter": 7}
    assert not pulse.look(entry)
    assert pulse.look(entry | {"counter": 8})
    assert pulse.look(entry | {"counter": 8})
    time.sleep(0.06)
    assert not pulse.look(entry | {"counter": 8})
    assert pulse.look(entry | {"nonce": "m", "counter": 0})
    assert not pulse.look(None)


def test_the_chief_waits_for_all(tmp_path, chief):
    _write_all(tmp_path, chief.nonce)
    found = _wait(tmp_path, chief)
    assert sorted(found) == ["ps-0", "worker-0", "worker-1"]
    assert found["worker-1"]["address"] == "x:4"


def test_the_chief_names_who_is_missing(tmp_path, chief):
    _write_all(tmp_path, chief.nonce)
    _write(tmp_path, "worker-1", incarnation="of a former chief", address="x:4")
    with pytest.raises(roster.RosterError) as caught:
        _wait(tmp_path, chief)
    assert str(caught.value) == (
        f"worker-1 at x:4 did not sign in under {tmp_path}/cluster within 0.3 s: it is "
        "not running, or its `model_dir` is another folder. All tasks must share the "
        "same `model_dir`."
    )


def test_the_chief_names_who_has_other_versions(tmp_path, chief):
    theirs = roster.versions() | {"tensorflow": "2.20.0"}
    _write_all(tmp_path, chief.nonce, ps={"versions": theirs})
    with pytest.raises(roster.RosterError) as caught:
        _wait(tmp_path, chief)
    assert str(caught.value) == (
        "ps-0 at p:2 (process 17 on elsewhere) runs tensorflow 2.20.0; the chief runs "
        f"{roster.versions()['tensorflow']}. Install the same version everywhere."
    )


def test_patch_levels_of_python_may_differ(tmp_path, chief):
    major, minor, _ = roster.versions()["python"].split(".")
    theirs = roster.versions() | {"python": f"{major}.{minor}.999"}
    _write_all(tmp_path, chief.nonce, ps={"versions": theirs})
    _wait(tmp_path, chief)
    theirs["python"] = f"{major}.999.0"
    _write_all(tmp_path, chief.nonce, ps={"versions": theirs})
    with pytest.raises(roster.RosterError, match=r"runs python 3\.999\.0"):
        _wait(tmp_path, chief)


def test_the_chief_names_who_has_another_address(tmp_path, chief):
    _write_all(tmp_path, chief.nonce, ps={"address": "q:9"})
    with pytest.raises(roster.RosterError) as caught:
        _wait(tmp_path, chief)
    assert str(caught.value) == (
        "ps-0 at p:2 (process 17 on elsewhere) has the address q:9. Give all tasks the "
        "same `cluster` in `TF_CONFIG`."
    )


def test_the_chief_passes_on_why_a_task_failed(tmp_path, chief):
    _write_all(tmp_path, chief.nonce, ps={"state": "failed", "message": "No room."})
    with pytest.raises(roster.RosterError) as caught:
        _wait(tmp_path, chief)
    expected = "ps-0 at p:2 (process 17 on elsewhere) failed: No room."
    assert str(caught.value) == expected


def test_two_processes_of_one_index_are_reported(tmp_path):
    signed_in = sign_in.SignedIn(tmp_path, _task("worker"), beat_secs=_BEAT)
    rivals.check_rival(_task("worker"), signed_in)
    _write(tmp_path, "worker-0", address="w:3")
    deadline = time.monotonic() + 10
    while signed_in.rival is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(roster.RosterError) as caught:
        rivals.check_rival(_task("worker"), signed_in)
    signed_in.close()
    assert str(caught.value) == (
        "Another process is already worker-0 of this job: process 17 on elsewhere, "
        "address w:3. End one of them, or give this one another `task.index` in "
        "`TF_CONFIG`."
    )


_STAND_IN = """
import sys, time
from monolith_tf.distribute import sign_in, task
cluster = {"chief": ("a:1",), "ps": ("p:2",), "worker": ("w:3",)}
who = task.Task(kind="worker", index=0, cluster=cluster)
sign_in.SignedIn(sys.argv[1], who, beat_secs=0.05)
print("here", flush=True)
time.sleep(60)
"""


def test_a_second_process_of_one_index_does_not_begin(tmp_path):
    worker = _task("worker")
    rivals.check_alone(tmp_path, worker)  # There is no other process.
    command = [sys.executable, "-c", _STAND_IN, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"here\n"
            with pytest.raises(roster.RosterError, match=f"process {other.pid} on"):
                rivals.check_alone(tmp_path, worker, beat_secs=1.0)
        finally:
            other.kill()
    begin = time.monotonic()
    rivals.check_alone(tmp_path, worker)  # Its process is dead on this machine.
    assert time.monotonic() - begin < 1
    assert roster.read(tmp_path, "worker-0")["host"] == socket.gethostname()


def test_what_stopped_long_ago_on_another_machine_is_no_rival(tmp_path):
    _write(tmp_path, "worker-0")
    rivals.check_alone(tmp_path, _task("worker"), beat_secs=0.02)
    _write(tmp_path, "worker-0", state="ended")
    begin = time.monotonic()
    rivals.check_alone(tmp_path, _task("worker"), beat_secs=60)
    assert time.monotonic() - begin < 1


def test_the_chief_does_not_wait_for_workers_that_are_given_up(tmp_path, chief):
    _write(tmp_path, "ps-0", address="p:2", incarnation=chief.nonce)
    _write(tmp_path, "worker-1", address="x:4", incarnation=chief.nonce)

    def wait(*optional):
        return gathering.wait_for_all(
            tmp_path,
            _task(),
            chief,
            timeout=0.3,
            poll_secs=0.01,
            optional=lambda: optional,
        )

    assert sorted(wait("worker-0")) == ["ps-0", "worker-1"]
    with pytest.raises(roster.RosterError, match="worker-0 at w:3 did not sign in"):
        wait()
    with pytest.raises(roster.RosterError, match="worker-0 at w:3 did not sign in"):
        wait("worker-1")
    (roster.folder(tmp_path) / "worker-1.json").unlink()
    with pytest.raises(roster.RosterError, match="worker-0 at w:3 did not sign in"):
        wait("worker-0", "worker-1")  # One is needed.


class TestStartsInARow:
    @pytest.fixture
    def start(self, tmp_path):
        """Signs in a chief after an earlier one; returns the number of starts."""

        def start(**former):
            _write(tmp_path, "chief", **former)
            signed_in = sign_in.SignedIn(tmp_path, _task(), beat_secs=3600)
            signed_in.close()
            self.signed_in = signed_in
            return roster.read(tmp_path, "chief")["starts"]

        return start

    def test_deaths_are_counted(self, start):
        assert start(state="running", starts=1) == 2
        assert start(state="ps_lost", starts=2) == 3
        assert start(state="joining", starts=3) == 4

    @pytest.mark.parametrize("state", ["done", "failed", "interrupted"])
    def test_what_ended_by_itself_is_no_death(self, start, state):
        assert start(state=state, starts=5) == 1

    def test_after_a_long_life_a_death_is_the_first_one(self, start):
        assert start(state="running", starts=5, counter=299) == 6
        assert start(state="running", starts=5, counter=300) == 1

    def test_making_way_is_no_death(self, start):
        assert start(state="regrouping", starts=2) == 2

    def test_too_many_are_an_error_where_the_environment_says_so(
        self, start, monkeypatch
    ):
        start(state="running", starts=3)
        self.signed_in.check_starts()
        monkeypatch.setenv(sign_in.RESTARTS_VARIABLE, "3")
        self.signed_in.check_starts()
        monkeypatch.setenv(sign_in.RESTARTS_VARIABLE, "2")
        with pytest.raises(roster.RosterError) as caught:
            self.signed_in.check_starts()
        assert str(caught.value) == (
            "chief died 3 times in a row, each time within 10 minutes; "
            "`--max-restarts` was 2. Its earlier logs say why."
        )
