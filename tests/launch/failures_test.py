"""Jobs of real processes that are killed, and the state of their rows after that.

A table has one row per row of the data, with Adam, whose state shows how often a row
was updated: once if its example was trained on once, twice if it was trained on twice.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from monolith_tf.embedding.saved import files as checkpoint_files
from monolith_tf.experiment import estimator
from monolith_tf.launch import local
from monolith_tf.testing import cluster_processes
from monolith_tf.testing import small_job

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_ROWS, _BATCH, _LOOP, _CHECKPOINT = 12_800, 64, 10, 50
_STEPS = _ROWS // _BATCH
_GATE = 120
# The standard error of an AUC over the 3,200 rows of the eval split is about 0.007.
_NOISE = 0.025

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(420)]
slow = pytest.mark.slow


def make_job(folder):
    """Writes a job with a table that counts how often each row is trained on."""
    path = small_job.write(folder, rows=_ROWS)
    table = parquet.read_table(folder / "train.parquet")
    numbers = pa.array(range(_ROWS), pa.int64())
    parquet.write_table(
        table.append_column("number", numbers),
        folder / "train.parquet",
        row_group_size=320,
    )
    held = parquet.read_table(folder / "eval.parquet")
    numbers = pa.array([0] * held.num_rows, pa.int64())
    parquet.write_table(held.append_column("number", numbers), folder / "eval.parquet")
    text = path.read_text()
    text = text.replace(
        "labels:", "  - {name: number, kind: id, table: count}\nlabels:"
    ).replace(
        "tables:\n",
        "tables:\n  - {name: count, dim: 1, "
        "optimizer: {name: adam, learning_rate: 1.0e-6}}\n",
    )
    path.write_text(text)
    return path


_TRAINING = [
    "trainer.epochs=1",
    "trainer.deterministic=false",
    "trainer.summaries=false",
    f"trainer.steps_per_loop={_LOOP}",
    f"trainer.checkpoint_every_steps={_CHECKPOINT}",
]
_OVERRIDES = [*_TRAINING, "trainer.actions=[gate:Gate]", "cluster.join_timeout=240"]
_HANG = "cluster.hang_timeout=30"


def environment(folder):
    path = os.pathsep.join([str(_ROOT), str(pathlib.Path(__file__).parent)])
    return os.environ | {
        "PYTHONPATH": path,
        "GATE_FOLDER": str(folder),
        "GATE_STEP": str(_GATE),
    }


class Job:
    """A launched job that a test can watch and disturb."""

    def __init__(self, folder, *arguments, prefix=()):
        self.folder = folder
        self.model_dir = folder / "model"
        command = [*prefix, sys.executable, "-m", "monolith_tf", "launch"]
        self._output = (folder / "launch.log").open("w+")
        self.process = subprocess.Popen(
            [*command, str(folder / "config.yaml"), *_OVERRIDES, *arguments],
            env=environment(folder),
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def output(self):
        return (self.folder / "launch.log").read_text()

    def entry_of(self, name):
        path = self.model_dir / "cluster" / f"{name}.json"
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError):
            return {}

    def step(self):
        lines = metrics(self.model_dir)
        return max((r["step"] for r in lines if r["phase"] == "train"), default=0)

    def wait_for(self, what, condition, secs=240):
        deadline = time.monotonic() + secs
        while not condition():
            assert self.process.poll() is None, f"{what}:\n{self.logs()}"
            assert time.monotonic() < deadline, f"{what}:\n{self.logs()}"
            time.sleep(0.02)

    def reach(self, step):
        self.wait_for(f"step {step}", lambda: self.step() >= step)

    def kill(self, name, number=signal.SIGKILL):
        """Kills a task like the system does; returns its process id."""
        pid = self.entry_of(name)["pid"]
        os.kill(pid, number)
        return pid

    def stop(self, name):
        """Stops a task with SIGSTOP, so that it neither works nor ends."""
        return self.kill(name, signal.SIGSTOP)

    def wait_for_new(self, name, old, state="serving"):
        """Waits until another process runs a task."""

        def is_back():
            entry = self.entry_of(name)
            return entry.get("pid", old) != old and entry["state"] == state

        self.wait_for(f"{name} is back", is_back)

    def open_gate(self):
        (self.folder / "open").touch()

    def end(self, code=0):
        """Waits for the end; returns the output."""
        try:
            found = self.process.wait(300)
        except subprocess.TimeoutExpired:
            pytest.fail(f"The job did not end:\n{self.logs()}")
        assert found == code, self.logs()
        return self.output

    def log(self, name):
        path = self.model_dir / "logs" / f"{name}.log"
        return path.read_text(errors="replace")

    def logs(self):
        parts = [self.output]
        for path in sorted((self.model_dir / "logs").glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-25:]
            parts += [f"--- {path.name}", *lines]
        return "\n".join(parts)

    def close(self):
        """Ends all running processes."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        for name in ("chief", "ps-0", "ps-1", "worker-0", "worker-1", "evaluator-0"):
            pid = self.entry_of(name).get("pid")
            if pid is not None and is_ours(pid, self.folder):
                os.kill(pid, signal.SIGKILL)
        self._output.close()


def is_ours(pid, folder):
    """Returns whether a process still runs a task of the job in a folder."""
    try:
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return str(folder).encode() in command


def metrics(model_dir):
    path = model_dir / "metrics.jsonl"
    if not path.exists():
        return []
    whole = path.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def auc(model_dir):
    records = metrics(model_dir) + metrics(model_dir / "evaluator")
    return [r for r in records if r["phase"] == "eval"][-1]["click/auc"]


def update_counts(model_dir):
    """Returns how often each row of the data was trained on, if it was at all."""
    newest = max((model_dir / "checkpoints").glob("ckpt-????????"))
    directory = str(newest / "embedding")
    counts = []
    for group in checkpoint_files.read_manifest(directory)["groups"]:
        for chunk in checkpoint_files.read_rows(directory, group):
            if chunk.rows.shape[1] == 5:  # Weight, m, v, beta_1^t, beta_2^t.
                counts.append(np.log(chunk.rows[:, 3]) / np.log(0.9))
    return np.rint(np.concatenate(counts)).astype(int)


def check_rows(model_dir, *, twice=0, lost=0):
    """Checks that at most that many rows were trained on twice, or not at all."""
    counts = update_counts(model_dir)
    assert _ROWS - len(counts) <= lost
    assert (counts - 1).sum() <= twice
    assert counts.min() == 1


@pytest.fixture
def launch(tmp_path):
    """Launches jobs, one after another, in one folder."""
    jobs = []
    make_job(tmp_path)

    def start(*arguments, **more):
        jobs.append(Job(tmp_path, *arguments, **more))
        return jobs[-1]

    yield start
    for job in jobs:
        job.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The AUC of an undisturbed job in one process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    estimator.Estimator(make_job(folder), *_TRAINING).train()
    counts = update_counts(folder / "model")
    assert len(counts) == _ROWS
    assert set(counts) == {1}
    return auc(folder / "model")


def check_end(job, undisturbed):
    assert metrics(job.model_dir)[-1]["step"] >= _STEPS
    assert job.entry_of("chief")["state"] == "done"
    assert auc(job.model_dir) == pytest.approx(undisturbed, abs=_NOISE)


def test_a_worker_dies_and_comes_back(launch, undisturbed):
    job = launch("--ps", "1", "--workers", "2")
    job.reach(30)
    job.wait_for_new("worker-0", job.kill("worker-0"))
    job.open_gate()
    output = job.end()
    assert "worker-0 was killed by SIGKILL; it restarts in 1 s (1 of 3)." in output
    check_rows(job.model_dir, twice=_LOOP * _BATCH)
    check_end(job, undisturbed)
    assert job.entry_of("worker-0")["examples"] > 0


def test_a_parameter_server_dies(launch, undisturbed):
    job = launch("--ps", "2", "--workers", "1")
    job.reach(_CHECKPOINT + 10)
    job.kill("ps-1")
    job.open_gate()
    output = job.end()
    # Either the launcher or the chief notices first.
    assert re.search(
        "(ps-1 was killed by SIGKILL|The chief lost a parameter server); "
        "the chief and the parameter servers restart from the last checkpoint",
        output,
    )
    assert "trains again on" in job.log("chief")
    # The rows' state goes back together with the position in the data.
    check_rows(job.model_dir)
    check_end(job, undisturbed)


@slow
def test_a_worker_dies_for_good(launch, undisturbed):
    job = launch("--ps", "1", "--workers", "2", "--max-restarts", "0")
    job.reach(30)
    job.kill("worker-0")
    job.open_gate()
    assert "worker-0 was killed by SIGKILL, after 0 restarts" in job.end()
    assert "The checkpoint is written; the chief restarts" in job.log("chief")
    assert job.entry_of("chief")["without"] == ["worker-0"]
    check_rows(job.model_dir, twice=_LOOP * _BATCH)
    check_end(job, undisturbed)


@slow
def test_a_worker_is_given_up_and_another_one_dies(launch, undisturbed):
    job = launch("--ps", "2", "--workers", "2", "--max-restarts", "1", _HANG)
    job.reach(30)
    job.wait_for_new("worker-1", job.kill("worker-1"))
    job.kill("worker-1")
    job.wait_for("worker-1 is given up", lambda: "continues without it" in job.output)
    job.wait_for_new("worker-0", job.kill("worker-0"))
    job.open_gate()
    job.end()
    assert "The job continues without worker-1." in job.log("chief")
    assert job.entry_of("chief")["without"] == ["worker-1"]
    check_rows(job.model_dir, twice=2 * _LOOP * _BATCH)
    check_end(job, undisturbed)


@slow
def test_a_worker_hangs(launch, undisturbed):
    job = launch("--ps", "1", "--workers", "2", _HANG)
    job.reach(30)
    job.wait_for_new("worker-0", job.stop("worker-0"))
    job.open_gate()
    assert "worker-0 was silent for 30 s while other tasks were not" in job.end()
    check_rows(job.model_dir, twice=_LOOP * _BATCH)
    check_end(job, undisturbed)


@slow
def test_a_parameter_server_hangs(launch, undisturbed):
    job = launch("--ps", "2", "--workers", "1", _HANG)
    job.reach(_CHECKPOINT + 10)
    job.open_gate()
    job.wait_for_new("ps-1", job.stop("ps-1"))
    assert "the chief and the parameter servers restart" in job.end()
    check_rows(job.model_dir)
    check_end(job, undisturbed)


@slow
def test_the_chief_hangs(launch, undisturbed):
    job = launch("--ps", "1", "--workers", "1", _HANG)
    job.reach(_CHECKPOINT + 10)
    job.stop("chief")
    job.open_gate()
    assert "chief was silent for 30 s while other tasks were not" in job.end()
    check_rows(job.model_dir)
    check_end(job, undisturbed)


@slow
def test_a_parameter_server_hangs_where_no_launcher_is(tmp_path):
    config = make_job(tmp_path)
    (tmp_path / "open").touch()
    with cluster_processes.ClusterProcesses(
        config, tmp_path / "model", *_TRAINING, _HANG, timeout=300
    ) as cluster:
        cluster.start()
        file = tmp_path / "model" / "cluster" / "chief.json"
        cluster.wait_until(lambda: file.exists() and '"step": ' in file.read_text())
        cluster.kill("ps-0", signal.SIGSTOP)
        assert cluster.wait("chief") == 75
        assert json.loads(file.read_text())["state"] == "ps_lost"
        assert "trains again on" in cluster.log("chief")


@slow
def test_a_worker_is_gone_and_another_one_dies_where_no_launcher_is(tmp_path):
    config = make_job(tmp_path)
    many = ("trainer.epochs=8", "cluster.hang_timeout=15")
    with cluster_processes.ClusterProcesses(
        config, tmp_path / "model", *_TRAINING, *many, workers=2, timeout=300
    ) as cluster:
        cluster.start()
        file = tmp_path / "model" / "cluster" / "chief.json"
        cluster.wait_until(lambda: file.exists() and '"step": ' in file.read_text())
        cluster.kill("worker-0")
        cluster.kill("worker-1")
        cluster.start("worker-1")
        assert cluster.wait("chief") == 0, cluster.log("chief")
        said = cluster.log("chief")
        assert "worker-0 is gone, and no worker has returned from a call for" in said
        assert "The job continues without worker-0." in said
    counts = update_counts(tmp_path / "model")
    assert len(counts) == _ROWS
    assert counts.min() >= 8


@slow
def test_a_stall_of_all_tasks_is_no_loss(launch, undisturbed):
    job = launch("--ps", "1", "--workers", "1", "cluster.hang_timeout=20")
    job.reach(30)
    tasks = ("chief", "ps-0", "worker-0")
    before = [job.stop(name) for name in tasks]
    time.sleep(75)
    for name in tasks:
        job.kill(name, signal.SIGCONT)
    job.open_gate()
    output = job.end()
    assert "restart" not in output
    assert [job.entry_of(name)["pid"] for name in tasks] == before
    check_rows(job.model_dir)
    check_end(job, undisturbed)


@slow
def test_the_chief_dies(launch, undisturbed):
    job = launch("--ps", "1", "--workers", "1")
    job.reach(_CHECKPOINT + 10)
    job.kill("chief")
    job.open_gate()
    assert "The chief was killed by SIGKILL; the chief and" in job.end()
    check_rows(job.model_dir)
    check_end(job, undisturbed)


@slow
def test_all_die(launch, undisturbed):
    job = launch("--ps", "1", "--workers", "1")
    job.reach(_CHECKPOINT + 10)
    job.process.kill()
    job.process.wait()
    for name in ("chief", "ps-0", "worker-0"):
        job.kill(name)
    job.open_gate()
    again = launch("--ps", "1", "--workers", "1")
    again.end()
    check_rows(again.model_dir)
    check_end(again, undisturbed)


@slow
def test_a_killed_launcher_leaves_nothing(launch):
    job = launch("--ps", "1", "--workers", "1")
    job.reach(30)
    tasks = [job.entry_of(name)["pid"] for name in ("chief", "ps-0", "worker-0")]
    job.process.kill()
    job.process.wait()
    job.open_gate()
    deadline = time.monotonic() + 120
    while any(is_ours(pid, job.folder) for pid in tasks):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # The chief wrote a checkpoint before it ended.
    assert job.entry_of("chief")["state"] == "interrupted"


@slow
def test_ctrl_c(launch, undisturbed):
    job = launch("--ps", "1", "--workers", "1", "--evaluator")
    job.reach(30)
    job.process.send_signal(signal.SIGINT)
    job.open_gate()
    output = job.end(code=130)
    assert "Interrupted; the chief writes a checkpoint." in output
    assert "Interrupted; the chief has written a checkpoint.\n" in output
    assert job.entry_of("chief")["state"] == "interrupted"
    assert update_counts(job.model_dir).max() == 1
    again = launch("--ps", "1", "--workers", "1", "--evaluator")
    again.end()
    check_rows(again.model_dir)
    check_end(again, undisturbed)


@pytest.fixture
def small_disk(tmp_path):
    """Makes `<tmp_path>/model` a full file system, as far as the system allows.

    Returns a command prefix that does so, and a function that frees space again.
    """
    folder = tmp_path / "model"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=450k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode == 0:
        more = ["mount", "-o", "remount,size=100m", str(folder)]
        yield [], lambda: subprocess.run(more, check=True)
        subprocess.run(["umount", "-l", str(folder)], check=True)
    else:  # No file may grow larger than this.
        yield ["prlimit", f"--fsize={100_000}"], lambda: None


@slow
def test_the_disk_is_full(launch, small_disk, undisturbed):
    prefix, make_room = small_disk
    job = launch("--ps", "1", "--workers", "1", prefix=prefix)
    job.open_gate()
    output = job.end(code=1)
    assert "The chief ended with exit code 1." in output
    assert "No space left" in output or "File too large" in output
    make_room()
    again = launch("--ps", "1", "--workers", "1")
    again.end()
    check_rows(again.model_dir)
    check_end(again, undisturbed)


_LATE = """\
import json, os, sys, time
if json.loads(os.environ["TF_CONFIG"])["task"]["type"] == "worker":
    time.sleep(30)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@slow
def test_a_task_starts_late(tmp_path, undisturbed, monkeypatch):
    config = make_job(tmp_path)
    (tmp_path / "open").touch()
    (tmp_path / "late.py").write_text(_LATE)
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    train = ["-m", "monolith_tf", "train", str(config), *_OVERRIDES]
    cluster = local.LocalCluster(
        local.local_tasks(ps=1, workers=1, evaluator=False),
        [sys.executable, str(tmp_path / "late.py"), *train, "cluster.ps=1"],
        tmp_path / "model",
        max_restarts=0,
    )
    outcome = cluster.run()
    assert outcome.code == 0, cluster.log_tail(outcome.culprit or "chief")
    check_rows(tmp_path / "model")
    assert auc(tmp_path / "model") == pytest.approx(undisturbed, abs=_NOISE)
