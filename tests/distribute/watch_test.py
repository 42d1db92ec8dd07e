"""What a chief concludes from other tasks' files, by a clock that the test controls."""

import json

import pytest

from monolith_tf.distribute import roster
from monolith_tf.distribute import sign_in
from monolith_tf.distribute import watch as watch_lib
from monolith_tf.distribute.task import Task

_CLUSTER = {
    "chief": ("a:1",),
    "ps": ("p:1", "q:1"),
    "worker": ("w:1", "x:1", "y:1"),
}
_CHIEF = Task(kind="chief", index=0, cluster=_CLUSTER)
_TIMEOUT = 30.0


class Files:
    """The files of tasks that beat while the test's clock advances."""

    def __init__(self, model_dir, *, without=()):
        self.model_dir = model_dir
        self.now = 0.0
        self.signed_in = sign_in.SignedIn(model_dir, _CHIEF, beat_secs=3600)
        self.signed_in.close(state="running")  # The test beats for the chief.
        self.entries = {
            other.name: {"nonce": f"{other.name} 1", "counter": 0}
            for other in _CHIEF.others()
        }
        self.watch = watch_lib.Watch(
            _CHIEF,
            str(model_dir),
            self.signed_in,
            {k: dict(v) for k, v in self.entries.items() if k not in without},
            hang_timeout=_TIMEOUT,
            clock=lambda: self.now,
        )

    def run(self, secs, *, silent=()):
        for _ in range(int(secs)):
            self.now += 1.0
            self.signed_in.update(counter=int(self.now))
            for name, entry in self.entries.items():
                entry["counter"] += name not in silent
                path = roster.folder(self.model_dir) / f"{name}.json"
                path.write_text(json.dumps(entry))
            self.watch.look()

    @property
    def written(self):
        return roster.read(self.model_dir, "chief")


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def test_all_is_well(files):
    files.run(3 * _TIMEOUT)
    files.watch.give_up_gone()
    assert (files.watch.lost, files.watch.change) == ("", "")


def test_a_parameter_server_that_hangs(files):
    files.run(5)
    files.run(_TIMEOUT - 2, silent=["ps-1"])
    assert files.watch.lost == ""
    files.run(5, silent=["ps-1"])
    assert (
        files.watch.lost
        == "A parameter server was lost: ps-1 at q:1 (silent for 30 s)."
    )


def test_a_parameter_server_that_is_another_process(files):
    files.run(5)
    files.entries["ps-0"]["nonce"] = "ps-0 2"
    files.run(1)
    assert files.watch.lost == "A parameter server was lost: ps-0 at p:1."


def test_a_worker_that_hangs_is_reported(files):
    files.run(5)
    files.run(_TIMEOUT + 5, silent=["worker-1"])
    assert files.written["hung"] == {"worker-1": "worker-1 1"}
    files.run(2)
    assert files.written["hung"] == {}
    assert files.watch.lost == ""


def test_a_stall_of_all_others_by_the_storage(files):
    files.run(5)
    files.now += 75  # Neither the chief's beats nor those of others arrive.
    files.run(20)
    assert files.watch.lost == ""
    assert files.written.get("hung", {}) == {}


def test_workers_that_the_launcher_gives_up(files):
    files.entries["launcher"] = {"nonce": "n", "counter": 0, "given_up": []}
    files.run(5)
    files.entries["launcher"]["given_up"] = ["worker-1", "evaluator-0"]
    files.run(1)
    assert files.watch.change == "worker-1 is given up"
    assert files.watch.without == ["worker-1"]
    files.entries["launcher"]["given_up"] = ["worker-0", "worker-1", "worker-2"]
    files.run(1)
    assert files.watch.change == ""  # The launcher ends a job without workers.


def test_a_launcher_that_is_gone_gives_nobody_up(files):
    files.entries["launcher"] = {"nonce": "n", "counter": 0, "given_up": ["worker-1"]}
    files.run(20, silent=["launcher"])
    assert files.watch.change == ""


def test_workers_that_are_gone_are_given_up_where_no_launcher_is(files):
    files.run(5)
    gone = ["worker-0", "worker-2"]
    files.run(2 * _TIMEOUT - 5, silent=gone)
    files.watch.give_up_gone()
    assert files.watch.change == ""
    files.run(10, silent=gone)
    assert files.watch.change == ""  # Only when they are missed.
    files.watch.give_up_gone()
    assert files.watch.change == "worker-0, worker-2 are gone"
    assert files.watch.without == gone


def test_the_last_worker_is_never_given_up(files):
    files.run(5)
    files.run(3 * _TIMEOUT, silent=["worker-0", "worker-1", "worker-2"])
    files.watch.give_up_gone()
    assert files.watch.change == ""


def test_a_launcher_decides_itself_who_is_gone(files):
    files.entries["launcher"] = {"nonce": "n", "counter": 0, "given_up": []}
    files.run(5)
    files.run(3 * _TIMEOUT, silent=["worker-0"])
    files.watch.give_up_gone()
    assert files.watch.change == ""


def test_a_worker_that_was_left_out_comes_back(tmp_path):
    files = Files(tmp_path, without=["worker-0", "worker-1"])
    files.run(100, silent=["worker-0", "worker-1"])
    assert files.watch.change == ""
    files.run(_TIMEOUT - 5, silent=["worker-1"])
    assert files.watch.change == ""  # It might die again.
    files.run(10, silent=["worker-1"])
    assert files.watch.change == "worker-0 is back"
    assert files.watch.without == ["worker-1"]
