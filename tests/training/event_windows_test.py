"""Tests of scores by windows of event time."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from monolith_tf.training import evaluation
from monolith_tf.training import event_windows

_NOW = 1_800_000_000


def _windows(length=10, lateness=2, names=("auc", "mse"), now=_NOW, recent=1):
    evaluator = object.__new__(evaluation.Evaluator)
    evaluator._names = tuple(names)
    return event_windows.EventWindows(
        evaluator, length, lateness, recent_batches=recent, clock=lambda: now
    )


def _found(predictions, labels, loss=0.5):
    return {
        "predictions": {"click": np.asarray(predictions, np.float32)},
        "labels": {"click": np.asarray(labels, np.float32)},
        "weights": {},
        "keys": {},
        "loss": {"": np.float32(loss)},
    }


def _add(windows, secs, partitions=None, predictions=None, labels=None, loss=0.5):
    times = (np.asarray(secs, np.float64) * 1000).astype(np.int64)
    predictions = np.zeros(len(times)) if predictions is None else predictions
    labels = np.arange(len(times)) % 2 if labels is None else labels
    partitions = np.zeros(len(times), int) if partitions is None else partitions
    windows.add(_found(predictions, labels, loss), times, np.asarray(partitions))


def _spans(scored):
    return [(one.begin // 1000, one.end // 1000, one.rows) for one in scored]


def test_rows_are_scored_in_the_window_of_their_time():
    draw = np.random.default_rng(3)
    windows = _windows()
    times = np.sort(draw.uniform(102, 158, 600)) + draw.uniform(-1, 1, 600)
    predictions, labels = draw.random(600), draw.integers(0, 2, 600)
    losses = draw.random(6)
    scored = []
    for batch in range(6):
        rows = slice(100 * batch, 100 * batch + 100)
        _add(
            windows,
            times[rows],
            predictions=predictions[rows],
            labels=labels[rows],
            loss=losses[batch],
        )
        scored += windows.ended()
    scored += windows.rest()
    assert sum(one.rows for one in scored) == 600
    assert windows.late_rows == windows.untimed_rows == 0
    for one in scored:
        assert one.end - one.begin == 10_000
        inside = (times * 1000 >= one.begin) & (times * 1000 < one.end)
        assert one.rows == inside.sum()
        expected = sklearn_metrics.roc_auc_score(
            labels[inside], predictions[inside].astype(np.float32)
        )
        assert one.metrics["click/auc"] == pytest.approx(expected)
        loss = np.repeat(losses, 100)[inside].mean()
        assert one.metrics["loss"] == pytest.approx(loss)


def test_a_window_is_over_once_event_time_has_passed_its_end_by_the_lateness():
    windows = _windows()
    _add(windows, [101, 109, 111.9])
    assert not windows.has_ended
    _add(windows, [105, 112])
    assert windows.has_ended
    assert _spans(windows.ended()) == [(100, 110, 3)]
    assert not windows.has_ended
    assert _spans(windows.rest()) == [(110, 120, 2)]


def test_late_rows_are_counted_and_in_no_window():
    windows = _windows()
    _add(windows, [101, 125])
    assert _spans(windows.ended()) == [(100, 110, 1)]
    _add(windows, [102, 109, 121, 126])  # The third is in time.
    assert windows.late_rows == 2
    assert _spans(windows.rest()) == [(120, 130, 3)]


def test_rows_without_a_time_or_far_ahead_end_no_window():
    windows = _windows()
    _add(windows, [_NOW, _NOW + 1, _NOW + 2])
    ahead = [_NOW + 86_400, -0.001, _NOW + 2]
    _add(windows, ahead)
    assert windows.untimed_rows == 2
    assert not windows.has_ended
    _add(windows, [_NOW + 3])
    assert windows.late_rows == 0
    assert sum(one.rows for one in windows.rest()) == 5


def test_a_partition_that_is_behind_holds_windows_open():
    windows = _windows(recent=4)
    for ahead in range(200, 300, 10):
        _add(windows, [ahead], [0])
        _add(windows, [ahead - 100], [1])
    assert _spans(windows.ended()) == [(t, t + 10, 1) for t in range(100, 180, 10)]
    assert windows.late_rows == 0


def test_a_partition_without_messages_holds_no_window_open():
    windows = _windows(recent=4)
    _add(windows, [100, 100], [0, 1])
    for secs in range(110, 400, 10):
        _add(windows, [secs], [0])
    assert len(windows.ended()) >= 25


def test_event_time_never_goes_back():
    windows = _windows()
    _add(windows, [200])
    _add(windows, [213])
    assert _spans(windows.ended()) == [(200, 210, 1)]
    _add(windows, [50, 201], [1, 1])  # Of a new partition.
    assert windows.late_rows == 2
    assert _spans(windows.rest()) == [(210, 220, 1)]


def test_labels_of_one_class_have_no_auc_but_are_recorded():
    windows = _windows()
    _add(windows, [100, 101], labels=[1, 1])
    (one,) = windows.rest()
    assert one.rows == 2
    assert np.isnan(one.metrics["click/auc"])
