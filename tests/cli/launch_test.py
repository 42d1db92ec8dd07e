"""What `monolith-tf launch` starts, prints and returns, with a fake job."""

import io
import json
import re
import subprocess
import sys

import pytest
import yaml

from monolith_tf.cli import cluster_view
from monolith_tf.cli import main
from monolith_tf.distribute.task import Task
from monolith_tf.launch import local
from monolith_tf.launch import status as status_lib
from monolith_tf.launch.states import Outcome
from monolith_tf.launch.states import TaskState

_CONFIG = """\
model_dir: {folder}
data: {{train: "{folder}/*.parquet", batch_size: 64}}
features: [{{name: user, kind: id}}]
labels: [click]
default_table: {{dim: 4, optimizer: adagrad}}
model: {{name: dcn, params: {{label: click}}}}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(_CONFIG.format(folder=tmp_path / "model"))
    return str(path)


@pytest.fixture
def call(capsys):
    def run(*arguments):
        status = main.main(main.parse(["monolith-tf", "launch", *arguments]))
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def started(monkeypatch):
    """Records what was started; ends with `outcome`."""

    class Started:
        outcome = Outcome(0)

        def __call__(self, tasks, command, model_dir, *, max_restarts, **more):
            self.tasks = [task.name for task in tasks]
            self.command, self.max_restarts = command, max_restarts
            self.logs = model_dir / "logs"
            return self

        def run(self):
            return self.outcome

        def log_tail(self, name):
            return [f"This is the log of {name}.", "error: no such file"]

    started = Started()
    monkeypatch.setattr(local, "LocalCluster", started)
    return started


class TestHere:
    def test_every_task_runs_the_same_command(self, call, config, started, tmp_path):
        status, out, err = call(
            config, "--ps", "2", "--workers", "1", "--evaluator", "seed=3"
        )
        assert status == 0
        assert started.tasks == ["chief", "ps-0", "ps-1", "worker-0", "evaluator-0"]
        assert started.max_restarts == 3
        begin = [sys.executable, "-m", "monolith_tf", "train", config, "seed=3"]
        assert started.command == [
            *begin,
            "cluster.ps=2",
            "cluster.workers=1",
            "cluster.evaluator=true",
        ]
        folder = tmp_path / "model"
        assert err == f"The logs of all tasks are in {folder}/logs.\n"
        assert out == f"Trained; checkpoints and metrics are in {folder}.\n"

    def test_the_cluster_of_the_config(self, call, config, started):
        options = ["--verbose", "--debug"]
        call(config, "cluster.workers=2", "--max-restarts", "0", *options)
        assert started.tasks == ["chief", "ps-0", "worker-0", "worker-1"]
        assert started.max_restarts == 0
        assert started.command[-3:] == ["cluster.workers=2", *options]

    def test_an_error_is_shown_with_the_log(self, call, config, started, tmp_path):
        started.outcome = Outcome(75, "The chief had enough.", "chief")
        status, out, err = call(config, "--ps", "1")
        assert status == 75
        assert out == ""
        assert err.endswith(
            f"The last lines of {tmp_path}/model/logs/chief.log:\n"
            "  This is the log of chief.\n"
            "  error: no such file\n"
            "error: The chief had enough.\n"
        )

    def test_an_interrupt(self, call, config, started):
        started.outcome = Outcome(130, "Interrupted.")
        status, _, err = call(config, "--ps", "1")
        assert status == 130
        assert err.endswith("Interrupted.\n")


def test_a_config_without_a_cluster(call, config):
    status, _, err = call(config)
    assert status == 2
    assert err == (
        "error: CONFIG has no `cluster`. Give its size, such as --ps 1 --workers 2.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ps", "1", "--image", "x"], "error: --image needs --target kubernetes.\n"),
        (["--flavor", "tfjob"], "error: --flavor needs --target kubernetes.\n"),
        (
            ["cluster.ps=0"],
            "command line: `cluster.ps`: `ps` must be at least 1. Received: ps=0. "
            "Leave `cluster` out to run in one process.\n",
        ),
    ],
    ids=str,
)
def test_wrong_use(call, config, arguments, message):
    status, _, err = call(config, *arguments)
    assert (status, err) == (2, message)


class TestKubernetes:
    def test_manifests_are_all_that_is_printed(self, call, config):
        status, out, err = call(
            config,
            *("--target", "kubernetes", "--ps", "2", "--image", "mt:1"),
            "model_dir=runs/a",
        )
        assert (status, err) == (0, "")
        manifests = list(yaml.safe_load_all(out))
        kinds = [manifest["kind"] for manifest in manifests]
        assert kinds.count("StatefulSet") == 2
        assert {m["metadata"]["name"] for m in manifests} == {
            "a",
            "a-chief",
            "a-config",
            "a-ps",
            "a-worker",
        }
        assert "image: mt:1\n" in out

    def test_a_tfjob(self, call, config):
        status, out, _ = call(
            config,
            *("--target", "kubernetes", "--flavor", "tfjob", "--workers", "5"),
            "model_dir=runs/a",
        )
        assert status == 0
        *_, job = yaml.safe_load_all(out)
        assert job["spec"]["tfReplicaSpecs"]["Worker"]["replicas"] == 5

    def test_an_error(self, call, config):
        status, out, err = call(config, "--target", "kubernetes", "--ps", "1")
        assert (status, out) == (1, "")
        assert err.startswith("error: `model_dir` must be relative or below /job,")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def job(tmp_path):
    """A running cluster job: its folder and status, and the states of its tasks."""
    cluster = {"chief": ("c:1",), "ps": ("p:1",), "worker": ("w:1",)}
    chief = Task(kind="chief", index=0, cluster=cluster)
    states = {t.name: TaskState(t, "running", 1) for t in (chief, *chief.others())}
    pids = {name: number for number, name in enumerate(states)}
    (tmp_path / "cluster").mkdir()

    class Job:
        def __init__(self, stream):
            status = status_lib.Status(tmp_path, batch_size=64)
            metrics = status_lib.MetricsTail(tmp_path / "metrics.jsonl")
            self.view = cluster_view.create(status, [metrics], stream)

        def tell(self, name, **values):
            values["pid"] = pids[name]
            (tmp_path / "cluster" / f"{name}.json").write_text(json.dumps(values))

        def record(self, **values):
            with (tmp_path / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(values) + "\n")

        def show(self):
            self.view.show(states, pids)

        def watch(self):
            self.view.watch(states, pids)

    return Job


def test_plain_lines(job):
    stream = io.StringIO()
    shown = job(stream)
    shown.tell("chief", state="running", step=50, total_steps=100)
    shown.record(phase="train", step=50, loss=0.5, examples_per_sec=9000.0)
    shown.record(phase="eval", step=50, loss=0.25, auc=0.75, gauc=None)
    shown.show()
    assert stream.getvalue() == (
        "train | step: 50 | loss: 0.5000 | examples/sec: 9000 | done: 50% | "
        "eta: -:--:--\n"
        "eval | step: 50 | loss: 0.25000 | auc: 0.75000\n"
    )
    shown.show()
    assert stream.getvalue().count("\n") == 2


def test_lines_before_the_chief_tells_how_far_it_is_to_go(job):
    stream = io.StringIO()
    shown = job(stream)
    shown.record(phase="train", step=5, loss=0.5)
    shown.show()
    assert stream.getvalue() == "train | step: 5 | loss: 0.5000\n"


def test_a_look_once_a_second_is_enough(job):
    stream = io.StringIO()
    shown = job(stream)
    shown.watch()
    shown.record(phase="eval", step=1)
    shown.watch()
    assert stream.getvalue() == ""
    shown.view._next = 0.0
    shown.watch()
    assert stream.getvalue() == "eval | step: 1\n"


def test_a_table_on_a_terminal(job):
    stream = Terminal()
    shown = job(stream)
    shown.tell("chief", state="running", step=1200, total_steps=9000)
    shown.tell("ps-0", state="serving")
    shown.record(phase="train", step=50, loss=0.5)
    shown.record(phase="eval", step=50, auc=0.75)
    shown.view.write("worker-0 was killed [by] SIGKILL.")
    shown.show()
    shown.view.end()
    text = re.sub(r"\x1b\[[0-9?;]*[A-Za-z]", "", stream.getvalue())
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "task state steps examples/s restarts" in lines
    assert "chief running 1,200/9,000 - 1" in lines
    assert "ps-0 serving - - 1" in lines
    assert "worker-0 starting - - 1" in lines
    assert "eval | step: 50 | auc: 0.75000" in lines
    assert "worker-0 was killed [by] SIGKILL." in lines
    assert "train |" not in text


def test_the_launcher_does_without_tensorflow():
    code = (
        "import sys; from monolith_tf.cli import launch, cluster_view; "
        "from monolith_tf.launch import kubernetes, local, status, tfjob; "
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
