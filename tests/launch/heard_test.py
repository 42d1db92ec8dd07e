"""What a launcher concludes from its tasks' files."""

import json
import subprocess
import sys

import pytest

from monolith_tf.distribute import roster
from monolith_tf.launch import heard as heard_lib
from monolith_tf.launch import local

_PIDS = {"chief": 10, "ps-0": 11, "worker-0": 12, "evaluator-0": 13}
_TIMEOUT = 60.0


class Files:
    """The files of tasks that beat while the test's clock advances."""

    def __init__(self, model_dir):
        self.model_dir = model_dir
        roster.folder(model_dir).mkdir()
        self.now = 0.0
        self.pids = dict(_PIDS)
        self.entries = {
            name: {"pid": pid, "nonce": f"{name} 1", "counter": 0, "state": "serving"}
            for name, pid in _PIDS.items()
        }
        self.entries["chief"]["state"] = "running"
        self.heard = heard_lib.Heard(
            model_dir, _PIDS, hang_timeout=_TIMEOUT, clock=lambda: self.now
        )

    def run(self, secs, *, silent=()):
        """Lets time pass; returns the tasks that were found to hang."""
        found = set()
        for _ in range(int(secs)):
            self.now += 1.0
            for name, entry in self.entries.items():
                entry["counter"] += name not in silent
                path = roster.folder(self.model_dir) / f"{name}.json"
                path.write_text(json.dumps(entry))
            self.heard.look(self.pids)
            found.update(self.heard.hung)
        return sorted(found)


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


@pytest.mark.parametrize("name", list(_PIDS))
def test_any_task_may_hang(files, name):
    assert files.run(_TIMEOUT, silent=[name]) == []
    assert files.run(10, silent=[name]) == [name]


def test_a_parameter_server_is_blamed_before_those_that_wait_for_it(files):
    files.run(10)
    # The chief was heard for the last time a little earlier.
    assert files.run(3, silent=["chief"]) == []
    both = ["chief", "ps-0"]
    assert files.run(_TIMEOUT - 1, silent=both) == []
    assert files.run(8, silent=both) == ["ps-0"]
    # The server is restarted, and the chief is heard.
    files.entries["ps-0"]["nonce"] = "ps-0 2"
    assert files.run(2 * _TIMEOUT) == []
    # A chief that hangs by itself is found.
    assert files.run(_TIMEOUT + 10, silent=["chief"]) == ["chief"]


def test_a_chief_that_hangs_with_a_parameter_server_is_found_after_it(files):
    files.run(10)
    both = ["chief", "ps-0"]
    assert files.run(_TIMEOUT + 5, silent=both) == ["ps-0"]
    files.entries["ps-0"]["nonce"] = "ps-0 2"
    assert files.run(_TIMEOUT + 10, silent=["chief"]) == ["chief"]


def test_a_stall_of_all_is_no_hang(files):
    files.run(5)
    assert files.run(75, silent=list(_PIDS)) == []
    assert files.run(20) == []


def test_the_chiefs_word_counts_for_the_process_it_spoke_of(files):
    files.run(5)
    files.entries["chief"]["hung"] = {"worker-0": "worker-0 1"}
    assert files.run(2) == ["worker-0"]
    files.pids["worker-0"] = 20  # Restarted; it has not signed in yet.
    assert files.run(2) == []
    files.entries["worker-0"] |= {"pid": 20, "nonce": "worker-0 2"}
    assert files.run(2) == []


def test_who_starts_or_makes_way_is_not_judged(files):
    files.run(5)
    files.pids["worker-0"] = 20
    assert files.run(2 * _TIMEOUT) == []
    files.entries["chief"]["state"] = "regrouping"
    files.entries["evaluator-0"]["state"] = "ended"
    silent = ["chief", "evaluator-0"]
    assert files.run(2 * _TIMEOUT, silent=silent) == []


def test_what_the_chief_is_at(files):
    files.run(2)
    assert (files.heard.trains, files.heard.ps_lost) == (False, False)
    files.entries["chief"]["step"] = 3
    files.run(2)
    assert (files.heard.trains, files.heard.ps_lost) == (True, False)
    files.entries["chief"]["state"] = "ps_lost"
    files.run(2)
    assert (files.heard.trains, files.heard.ps_lost) == (False, True)
    files.pids["chief"] = 20
    files.run(2)
    assert not files.heard.ps_lost


_STAND_IN = """
import sys, time
from monolith_tf.launch import heard
heard.sign_in(sys.argv[1], list)
print("here", flush=True)
time.sleep(120)
"""


class TestLaunchers:
    def test_the_second_of_two_names_the_one_that_runs(self, tmp_path):
        cluster = local.LocalCluster(
            local.local_tasks(ps=1, workers=1, evaluator=False),
            [sys.executable, "-c", "raise SystemExit('No task may start.')"],
            tmp_path,
            max_restarts=0,
        )
        command = [sys.executable, "-c", _STAND_IN, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
            try:
                assert other.stdout.readline() == b"here\n"
                with pytest.raises(roster.RosterError) as caught:
                    cluster.run()
            finally:
                other.kill()
        assert str(caught.value).startswith(
            f"Another launcher already runs the job of {tmp_path}: process {other.pid} "
        )
        assert list(cluster.logs.glob("*")) == []
        assert cluster.run().code == 1  # A killed launcher is not a rival.

    def test_its_file_says_who_is_given_up(self, tmp_path):
        signed_in = heard_lib.sign_in(tmp_path, lambda: ["worker-1"])
        signed_in.close()
        entry = roster.read(tmp_path, "launcher")
        assert (entry["given_up"], entry["state"]) == (["worker-1"], "running")

    def test_of_two_that_sign_in_at_once_one_stays(self, tmp_path):
        signed_in = heard_lib.sign_in(tmp_path, list)
        signed_in.close()
        heard_lib.check_alone(tmp_path, signed_in)
        signed_in.rival = {"nonce": "g", "pid": 17, "host": "elsewhere"}
        heard_lib.check_alone(tmp_path, signed_in)
        signed_in.rival["nonce"] = " "
        with pytest.raises(roster.RosterError) as caught:
            heard_lib.check_alone(tmp_path, signed_in)
        assert str(caught.value) == (
            f"Another launcher already runs the job of {tmp_path}: process 17 on "
            "elsewhere. End it first, or give this job another `model_dir`."
        )
