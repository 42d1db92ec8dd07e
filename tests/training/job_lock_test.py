"""Tests of the lock of a job's folder."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from monolith_tf.training import job_lock

_HOLD = """
import pathlib, sys, time
from monolith_tf.training import job_lock
with job_lock.held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_refused_and_named_until_it_ends(tmp_path):
    folder = tmp_path / "job"
    command = [sys.executable, "-c", _HOLD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            message = rf"already trains in .*job: process {holder.pid} on "
            refused = pytest.raises(job_lock.JobRunsError, match=message)
            with refused, job_lock.held(folder):
                pass
        finally:
            holder.send_signal(signal.SIGKILL)
            holder.wait(timeout=30)
    with job_lock.held(folder):
        assert str(os.getpid()) in (folder / "job.lock").read_text()


def test_a_folder_is_free_after_the_run(tmp_path):
    for _ in range(2):
        named = f": process {os.getpid()} on "
        refused = pytest.raises(job_lock.JobRunsError, match=named)
        with job_lock.held(tmp_path), refused, job_lock.held(tmp_path):
            pass


def test_a_holder_that_has_not_said_which_it_is(tmp_path):
    for text in ("", '{"pid": 3}', "[]"):
        with job_lock.held(tmp_path):
            (tmp_path / "job.lock").write_text(text)
            refused = pytest.raises(job_lock.JobRunsError, match="its id is not known")
            with refused, job_lock.held(tmp_path):
                pass


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(job_lock.fcntl, "flock", no_locks)
    said = []
    monkeypatch.setattr(job_lock.logging, "warning", lambda *args: said.append(args))
    with job_lock.held(tmp_path):
        assert str(os.getpid()) in (tmp_path / "job.lock").read_text()
    ((message, path, error),) = said
    assert "cannot be locked" in message
    assert path == tmp_path / "job.lock"
    assert error.errno == errno.ENOLCK
