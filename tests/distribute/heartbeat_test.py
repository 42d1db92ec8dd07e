"""Which tasks count as hung, by a clock that the test controls."""

import time

import pytest

from monolith_tf.distribute import heartbeat

_TIMEOUT = 60.0


class Tasks:
    """Tasks that beat every two seconds, and a judge that looks every second."""

    def __init__(self, *names, witnesses=()):
        self.now = 1000.0
        self.counts = dict.fromkeys((*names, *witnesses), 0)
        self.lives = dict.fromkeys(self.counts, "first")
        self.judge = heartbeat.Judge(
            names,
            self,
            hang_timeout=_TIMEOUT,
            witnesses=witnesses,
            clock=lambda: self.now,
        )
        self.run(4)

    def latest(self, name):
        if self.counts[name] is None:
            return None
        return heartbeat.Beat(self.lives[name], self.counts[name])

    def run(self, secs, *, silent=()):
        """Lets time pass in which some tasks are silent."""
        for _ in range(int(secs)):
            self.now += 1.0
            if self.now % 2 == 0:
                for name in self.counts:
                    if name not in silent and self.counts[name] is not None:
                        self.counts[name] += 1
            self.judge.look()

    @property
    def hung(self):
        return list(self.judge.hung())


def test_nobody_hangs_who_beats():
    tasks = Tasks("a", "b")
    tasks.run(1000)
    assert tasks.hung == []


def test_a_silent_task_hangs_after_the_timeout():
    tasks = Tasks("a", "b", "c")
    tasks.run(_TIMEOUT, silent="b")
    assert tasks.hung == []
    tasks.run(4, silent="b")
    assert tasks.judge.hung() == {"b": tasks.latest("b")}
    assert tasks.judge.silent_secs("b") == pytest.approx(_TIMEOUT, abs=5)
    tasks.run(4)
    assert tasks.hung == []


def test_a_stall_of_all_is_nobodys():
    tasks = Tasks("a", "b")
    for _ in range(10):
        tasks.run(75, silent="ab")
        tasks.run(10)
    assert tasks.hung == []


def test_after_a_stall_of_all_one_may_come_back_later():
    tasks = Tasks("a", "b")
    tasks.run(75, silent="ab")
    tasks.run(_TIMEOUT - 10, silent="b")
    assert tasks.hung == []
    tasks.run(20, silent="b")
    assert tasks.hung == ["b"]


def test_a_stall_of_the_judge_is_nobodys():
    tasks = Tasks("a", "b")
    tasks.now += 3600
    tasks.counts["a"] += 1  # Heard first; b is heard a moment later.
    tasks.judge.look()
    assert tasks.hung == []
    tasks.run(10)
    assert tasks.hung == []


def test_a_witness_shows_that_time_goes_on():
    alone = Tasks("a")
    alone.run(2 * _TIMEOUT, silent="a")
    assert alone.hung == []
    seen = Tasks("a", witnesses=["me"])
    seen.run(2 * _TIMEOUT, silent="a")
    assert seen.hung == ["a"]
    seen.run(2 * _TIMEOUT, silent=["me"])
    assert seen.hung == []  # A witness itself is not judged.


def test_a_task_is_judged_from_its_first_beat_on():
    tasks = Tasks("a", "b")
    tasks.counts["b"] = None
    tasks.judge.forget("b")
    tasks.run(3 * _TIMEOUT)
    assert tasks.hung == []
    tasks.counts["b"], tasks.lives["b"] = 0, "second"
    tasks.run(_TIMEOUT - 10, silent="b")
    assert tasks.hung == []
    tasks.run(20, silent="b")
    assert tasks.judge.hung() == {"b": heartbeat.Beat("second", 0)}


def test_a_beat_that_vanishes_is_silence():
    tasks = Tasks("a", "b")
    tasks.counts["b"] = None
    tasks.run(_TIMEOUT + 10)
    assert tasks.hung == ["b"]


def test_a_new_life_ends_the_silence():
    tasks = Tasks("a", "b")
    tasks.run(_TIMEOUT - 10, silent="b")
    tasks.lives["b"], tasks.counts["b"] = "second", 0
    tasks.run(_TIMEOUT - 10, silent="b")
    assert tasks.hung == []


def test_the_file_of_a_probe_goes_on_changing(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_SECS", 0.01)
    monkeypatch.delenv(heartbeat.FILE_VARIABLE, raising=False)
    heartbeat.beat_into_file()
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / "beat"
    monkeypatch.setenv(heartbeat.FILE_VARIABLE, str(path))
    heartbeat.beat_into_file()
    seen = set()
    deadline = time.monotonic() + 30
    while len(seen) < 3:
        assert time.monotonic() < deadline
        if path.exists():
            seen.add(path.read_text())
        time.sleep(0.01)
