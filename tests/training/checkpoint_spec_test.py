"""Tests of when checkpoints are written: the keys, and what is due."""

from unittest import mock

import pytest

from monolith_tf.training import actions
from monolith_tf.training import checkpoint_spec
from monolith_tf.training import due
from monolith_tf.training import spec
from tests.training import fakes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("1.5m", 90), ("2h", 7200), ("1d", 86400)],
)
def test_a_time_has_a_unit(text, seconds):
    assert checkpoint_spec.seconds("full_every", text) == seconds
    checkpoint_spec.CheckpointSpec(full_every=text)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"full_every": 0}, "`full_every` must be at least 1 step. Received"),
        ({"delta_every": "0s"}, "`delta_every` must be a number of steps, or a time"),
        ({"delta_every": "10"}, "such as .*Received: delta_every='10'"),
    ],
)
def test_what_is_no_interval_is_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        checkpoint_spec.CheckpointSpec(**keys)


def test_event_time_has_a_unit():
    with pytest.raises(ValueError, match="`event` must be"):
        checkpoint_spec.EventInterval(event="soon")


@pytest.mark.parametrize("key", ["checkpoint_every_steps", "checkpoint_every_secs"])
def test_two_names_for_the_whole_ones_are_refused(key):
    found = checkpoint_spec.CheckpointSpec(full_every=3)
    with pytest.raises(ValueError, match=f"`{key}` and `checkpoint.full_every` are"):
        spec.TrainerSpec(checkpoint=found, **{key: 5})
    deltas = checkpoint_spec.CheckpointSpec(delta_every=3)
    assert spec.TrainerSpec(checkpoint=deltas, **{key: 5}).checkpoint == deltas


def _saved(action, run, steps):
    """Runs an action up to a step; returns the steps saved and those of deltas."""
    run.writes_deltas = True
    action.begin(run)
    for step in range(steps):
        due_at = action.next_step(step)
        run.progress.step = step + 1
        if due_at is not None and due_at <= step + 1:
            action.act(run)
            run.save_wanted()
    return run.checkpoints.steps, run.checkpoints.deltas


def test_deltas_come_between_whole_ones():
    action = actions.SaveCheckpoint([6], None, deltas=due.Due([due.Interval(2)]))
    assert _saved(action, fakes.run(), 13) == ([2, 4, 6, 8, 10, 12], [2, 4, 8, 10])


def test_the_end_writes_a_delta():
    run = fakes.run()
    action = actions.SaveCheckpoint([6], None, deltas=due.Due([due.Interval(4)]))
    _saved(action, run, 7)
    action.end(run)
    run.save_wanted()
    assert run.checkpoints.steps == [4, 6, 7]
    assert run.checkpoints.deltas == [4, 7]


def test_event_time_counts_from_the_first_event():
    now = [0.0]
    deltas = due.Due(every_event_secs=10, event_time=lambda: now[0])
    run, found = fakes.run(), []
    action = actions.SaveCheckpoint(
        [], None, every_event_secs=25, deltas=deltas, event_time=lambda: now[0]
    )
    action.begin(run)
    for step, when in enumerate((0, 1000, 1009, 1010, 1019, 1021, 1027), start=1):
        now[0] = float(when)
        if action.next_step(step - 1) == step:
            run.progress.step = step
            run.want_checkpoint = mock.Mock()
            action.act(run)
            found.append((when, run.want_checkpoint.call_args.kwargs["is_whole"]))
    assert found == [(1010, False), (1021, False), (1027, True)]
