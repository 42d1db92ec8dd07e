"""Tests of a run's state: its counters, and when a checkpoint is written."""

import dataclasses
import json
from unittest import mock

import numpy as np
import pytest

from monolith_tf.training import lineage_mark
from monolith_tf.training import run as run_lib
from monolith_tf.training import step as step_lib
from tests.training import fakes


def _result(steps, loss_sum, norm, **auxiliary):
    return step_lib.LoopResult(
        steps=np.int64(steps),
        examples=np.int64(10 * steps),
        loss_sum=np.float32(loss_sum),
        finite=np.bool_(True),
        norm=np.float32(norm),
        auxiliary={name: np.float32(value) for name, value in auxiliary.items()},
        clipped={},
    )


def test_a_new_run_has_seen_nothing():
    assert dataclasses.asdict(run_lib.Progress()) == {
        "step": 0,
        "batch": 0,
        "batch_size": 0,
        "begun": {},
        "stream": None,
        "former_streams": {},
        "examples": 0,
        "clipped": {},
        "metrics": {},
        "best": {},
        "evaluated_on": None,
        "stop": "",
        "overdue": [],
    }
    assert dataclasses.asdict(run_lib.Window()) == {
        "steps": 0,
        "examples": 0,
        "seconds": 0.0,
        "loss_sum": 0.0,
        "norm": 0.0,
        "auxiliary": {},
    }


def test_a_window_adds_calls_up_and_keeps_the_last_norm():
    window = run_lib.Window()
    window.add(_result(3, 1.5, 4.0, half=0.5), 2.0)
    window.add(_result(2, 0.25, 8.0, half=0.25, other=1.0), 0.5)
    assert window == run_lib.Window(
        steps=5,
        examples=50,
        seconds=2.5,
        loss_sum=1.75,
        norm=8.0,
        auxiliary={"half": 0.75, "other": 1.0},
    )
    json.dumps(dataclasses.asdict(window))  # As a checkpoint's manifest.


@pytest.fixture
def run():
    run = fakes.run()
    run.model_dir /= "model"
    run.progress.step = 7
    return run


def test_nothing_is_written_where_nobody_asked(run):
    run.save_wanted()
    assert run.saved is None
    assert not run.checkpoints.steps
    assert not run.model_dir.exists()


def test_all_who_ask_get_the_one_checkpoint_in_their_order(run):
    got = []
    run.want_checkpoint(lambda saved: got.append(("first", saved)))
    run.want_checkpoint()
    run.want_checkpoint(lambda saved: got.append(("second", saved)))
    assert not run.checkpoints.steps
    run.save_wanted()
    assert run.checkpoints.steps == [7]
    assert got == [("first", run.saved), ("second", run.saved)]
    run.save_wanted()
    assert run.checkpoints.steps == [7]
    assert len(got) == 2


def test_who_asks_without_a_use_for_it_gets_one_too(run):
    run.want_checkpoint()
    run.save_wanted()
    assert run.checkpoints.steps == [7]


def test_a_checkpoint_that_holds_the_same_is_not_written_again(run):
    first = run.save_checkpoint()
    got = []
    run.want_checkpoint(got.append)
    run.save_wanted()
    assert run.checkpoints.steps == [7]
    assert got == [first]
    assert run.save_checkpoint() is first


def test_another_step_or_another_state_is_written(run):
    run.save_checkpoint()
    run.progress.step = 8
    assert run.save_checkpoint() is run.saved
    assert run.checkpoints.steps == [7, 8]
    run.progress.metrics = {"loss": 1.0}
    run.save_checkpoint()
    assert run.checkpoints.steps == [7, 8, 8]
    run.saved.manifest["state"]["job"] = "another"
    run.save_checkpoint()
    assert run.checkpoints.steps == [7, 8, 8, 8]


def test_the_same_state_at_another_step_is_written(run):
    # A changed file of a checkpoint may contradict the manifest.
    run.save_checkpoint()
    run.saved.step = 6
    run.save_checkpoint()
    assert run.checkpoints.steps == [7, 7]


def test_a_checkpoint_holds_what_the_run_needs_to_go_on(run):
    run.window.add(_result(3, 1.5, 4.0), 2.0)
    search = {"layer": {"user": {"kept": 1, "width": 4}}}
    with mock.patch.object(run_lib.architecture, "describe", return_value=search):
        run.save_checkpoint()
    assert run.checkpoints.states == [
        {
            "job": "a",
            "progress": dataclasses.asdict(run.progress),
            "window": dataclasses.asdict(run.window),
            "search": search,
        }
    ]


def test_the_line_of_the_job_is_noted_before_the_checkpoint_is_there(run):
    noted = []

    def save(*args, **kwargs):
        text = (run.model_dir / "lineage.json").read_text(encoding="utf-8")
        noted.append(json.loads(text)["newest"])
        raise OSError("disk is full")

    run.checkpoints.save = save
    with pytest.raises(OSError, match="disk is full"):
        run.save_checkpoint()
    assert noted == [7]
    assert run.saved is None


def test_no_line_is_noted_where_nothing_is_written(run):
    run.save_checkpoint()
    with mock.patch.object(lineage_mark, "write") as write:
        run.save_checkpoint()
    write.assert_not_called()


def test_numbers_are_recorded_under_the_present_step(run):
    run.record("train", {"loss": 0.5})
    assert run.recorder.records == [("train", 7, {"loss": 0.5})]


def test_stop_says_why(run):
    run.stop("early: enough")
    assert run.progress.stop == "early: enough"
