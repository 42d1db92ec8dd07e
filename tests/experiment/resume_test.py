"""Kills real training processes and compares the result with an undisturbed run."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from monolith_tf.testing import small_job

_TIMEOUT_SECS = 240


def _start(config, *overrides):
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        [sys.executable, "-m", "monolith_tf", "train", str(config), *overrides],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _finish(process):
    output, _ = process.communicate(timeout=_TIMEOUT_SECS)
    assert process.returncode == 0, output
    return output


def _kill_when(process, condition):
    """Sends SIGKILL as soon as a condition holds; the process must not be done."""
    deadline = time.monotonic() + _TIMEOUT_SECS
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the job did not get that far"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)


def _lines(model_dir):
    """Returns the metrics log without times."""
    lines = (model_dir / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if k != "examples_per_sec"}
        for line in lines
    ]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "deterministic", [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_a_job_killed_twice_ends_as_an_undisturbed_one(tmp_path, deterministic):
    config = small_job.write(tmp_path)
    how = f"trainer.deterministic={str(deterministic).lower()}"
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    undisturbed = _start(config, how, f"model_dir={calm}")
    process = _start(config, how, f"model_dir={killed}")
    folder = killed / "checkpoints"
    # Once while a checkpoint is written, once between two checkpoints.
    _kill_when(process, lambda: (folder / "ckpt-00000030").exists())
    process = _start(config, how, f"model_dir={killed}")
    _kill_when(process, lambda: (folder / "ckpt-00000045" / "manifest.json").exists())
    resumed = _finish(_start(config, how, f"model_dir={killed}"))
    _finish(undisturbed)
    assert "Resuming from" in resumed
    assert small_job.last(killed).step == small_job.last(calm).step == 2 * 32
    rows = small_job.rows(small_job.last(calm).embedding_dir)
    assert len(rows) > 50
    # The same batches in the same order: the same ids were seen at the same steps.
    assert rows.keys() == small_job.rows(small_job.last(killed).embedding_dir).keys()
    lines = _lines(killed)
    assert [_place(line) for line in lines] == [_place(line) for line in _lines(calm)]
    if not deterministic:
        for line, expected in zip(lines, _lines(calm), strict=True):
            for name, value in expected.items():
                if name != "phase":
                    assert line[name] == pytest.approx(value, abs=0.02), name
        return
    expected, found = (
        small_job.dense(small_job.last(calm)),
        small_job.dense(small_job.last(killed)),
    )
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert rows == small_job.rows(small_job.last(killed).embedding_dir)
    assert lines == _lines(calm)


def _place(line):
    return line["phase"], line["step"]


@pytest.mark.timeout(600)
def test_interrupt_leaves_a_checkpoint_and_exit_code_130(tmp_path):
    config = small_job.write(tmp_path)
    process = _start(
        config, "trainer.epochs=1000", "trainer.checkpoint_every_steps=null"
    )
    model_dir = tmp_path / "model"
    log = model_dir / "metrics.jsonl"
    deadline = time.monotonic() + _TIMEOUT_SECS
    while not (log.exists() and log.stat().st_size):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "wrote the checkpoint" in output
    found = small_job.last(model_dir)
    assert found.step > 0
    assert isinstance(found.path, pathlib.Path)
