"""Kills real jobs that write deltas; they end as an undisturbed one."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from monolith_tf.testing import small_job
from monolith_tf.training import checkpoint_dir

_TIMEOUT_SECS = 240
_HOW = (
    "trainer.checkpoint_every_steps=null",
    "trainer.checkpoint={full_every: 20, delta_every: 2}",
    "tables[1].admit_after=3",
)


def _start(config, model_dir):
    command = [sys.executable, "-m", "monolith_tf", "train", str(config), *_HOW]
    return subprocess.Popen(
        [*command, f"model_dir={model_dir}"],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _finish(process):
    output, _ = process.communicate(timeout=_TIMEOUT_SECS)
    assert process.returncode == 0, output
    return output


def _kill_after(process, folder, steps, secs):
    """Kills a job some time after its checkpoints have come that much further."""
    names = checkpoint_dir.CheckpointDir(folder).names

    def reached():
        found = names()
        return int(found[-1].partition("-")[2]) if found else 0

    until, deadline = reached() + steps, time.monotonic() + _TIMEOUT_SECS
    while reached() < until:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the job did not get that far"
        time.sleep(0.001)
    time.sleep(secs)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)


@pytest.mark.timeout(900)
@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, 8])
def test_a_job_killed_while_it_writes_deltas_ends_as_an_undisturbed_one(
    tmp_path, kills
):
    config = small_job.write(tmp_path)
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    undisturbed = _start(config, calm)
    rng = random.Random(kills)
    for _ in range(kills):
        process = _start(config, killed)
        secs = rng.uniform(0.0, 0.1)
        _kill_after(process, killed / "checkpoints", 40 // kills, secs)
    output = _finish(_start(config, killed))
    _finish(undisturbed)
    assert "Resuming from" in output
    expected, found = small_job.last(calm), small_job.last(killed)
    assert expected.step == found.step == 64
    assert len(expected.chain()) > 1
    assert len(found.chain()) > 1
    rows = small_job.rows(*expected.embedding_layers)
    assert len(rows) > 50
    assert small_job.rows(*found.embedding_layers) == rows
    assert expected.manifest["state"]["progress"] == found.manifest["state"]["progress"]
    counters = [table["counters"] for table in expected.manifest["embedding"]["tables"]]
    assert sum(counter["refused"] for counter in counters) > 0
    assert counters == [t["counters"] for t in found.manifest["embedding"]["tables"]]
    values = small_job.dense(expected)
    assert values.keys() == small_job.dense(found).keys()
    for name, value in small_job.dense(found).items():
        np.testing.assert_array_equal(value, values[name], err_msg=name)
