"""What the guard refuses, on predictions and labels worked out by hand."""

import math
import threading

import numpy as np
import pytest

from monolith_tf.export.publish_spec import GuardSpec
from monolith_tf.serving import golden
from monolith_tf.serving import guard as guard_lib
from monolith_tf.serving import trial as trial_lib

_LABELS = np.array([1, 0, 1, 0], np.float32)
_ROWS = golden.GoldenRows({"user": np.arange(4)}, {"click": _LABELS})


def _predicted(right):
    """Predictions that give each label this probability."""
    return {"click": np.where(_LABELS == 1, right, 1 - right).astype(np.float32)}


def _guard(**limits):
    made = guard_lib.Guard(GuardSpec(**limits), _ROWS)
    made.measure(_predicted(0.8))
    return made


def test_scores_are_those_of_the_definition():
    (score,) = guard_lib.scores(_ROWS.labels, _predicted(0.8)).values()
    assert score.log_loss == pytest.approx(-math.log(0.8), abs=1e-6)
    assert score.calibration == pytest.approx(1.0)
    # Heads without a label, of another shape or of no probability are left out.
    others = {"sum": np.ones(4), "click": np.ones((4, 2))}
    assert not guard_lib.scores(_ROWS.labels, others)
    assert not guard_lib.scores(_ROWS.labels, {"click": np.full(4, 1.5)})


def test_a_rise_of_the_log_loss_beyond_the_limit_is_refused():
    guard = _guard(log_loss_rise=0.5)
    limit = 0.8**1.5 * math.exp(-0.01)  # Log loss 1.5 times that of 0.8, and 0.01.
    guard.check(_predicted(limit + 0.001))
    with pytest.raises(guard_lib.RefusedError, match="log loss of `click` on 4 golden"):
        guard.check(_predicted(limit - 0.001))


def test_small_steps_for_the_worse_do_not_add_up():
    guard = _guard(log_loss_rise=0.5)
    guard.check(_predicted(0.75))
    guard.measure(_predicted(0.75))  # It has its measure.
    with pytest.raises(guard_lib.RefusedError):
        guard.check(_predicted(0.7))
    guard.replace(_ROWS)
    guard.measure(_predicted(0.75))
    guard.check(_predicted(0.7))


def test_another_mean_prediction_is_refused():
    guard = _guard(log_loss_rise=100.0, calibration=(0.5, 1.5))
    guard.check({"click": np.full(4, 0.74, np.float32)})
    for value, ratio in ((0.2, "0.4"), (0.8, "1.6")):
        with pytest.raises(guard_lib.RefusedError, match=f"from 1 to {ratio};"):
            guard.check({"click": np.full(4, value, np.float32)})


def test_a_model_that_learns_a_rare_label_is_not_stopped():
    labels = (np.arange(1000) % 50 == 0).astype(np.float32)
    rows = golden.GoldenRows({"user": np.arange(1000)}, {"click": labels})
    guard = guard_lib.Guard(GuardSpec(), rows)
    guard.measure({"click": np.full(1000, 0.5, np.float32)})  # Before training.
    for value in (0.2, 0.05, 0.02, 0.01):
        guard.check({"click": np.full(1000, value, np.float32)})
    guard = guard_lib.Guard(GuardSpec(log_loss_rise=9.0), rows)
    guard.measure({"click": np.full(1000, 0.5, np.float32)})
    with pytest.raises(guard_lib.RefusedError, match=r"from 25 to 40;"):
        guard.check({"click": np.full(1000, 0.8, np.float32)})


def test_what_is_not_finite_is_refused_without_labels_too():
    guard = guard_lib.Guard(GuardSpec(), None)
    guard.check({"sum": np.ones(3)})
    with pytest.raises(guard_lib.RefusedError, match="`sum` for golden row 2"):
        guard.check({"sum": np.array([1, 2, np.nan])})


def test_golden_rows_are_read_as_they_were_written(tmp_path):
    rows = golden.GoldenRows(
        {
            "word": np.array([b"a", b"\xff\0"], object),
            "list": np.array([[1, 2], [3, 0]]),
            "list_length": np.array([2, 1]),
        },
        {"click": np.array([1, np.nan], np.float32)},
    )
    rows.write(tmp_path / "rows")
    found = golden.read(tmp_path / "rows")
    assert found.num_rows == 2
    for before, after in zip(rows, found, strict=True):
        assert set(before) == set(after)
        for name, value in before.items():
            np.testing.assert_array_equal(after[name], value)
    (tmp_path / "rows").write_bytes(b"other")
    with pytest.raises(ValueError, match="has no golden rows"):
        golden.read(tmp_path / "rows")


@pytest.mark.parametrize(
    ("error", "refused"),
    [(None, 0), (guard_lib.RefusedError("bad"), 4), (OSError("away"), 0)],
)
def test_one_thread_tries_and_the_others_wait_for_the_verdict(error, refused):
    trial = trial_lib.Trial(guard_lib.Guard(GuardSpec(), None))
    tried, passed, failed = [], [], []
    go = threading.Event()

    def work(number):
        go.wait(10)
        try:
            with trial.turn() as is_first:
                if is_first:
                    assert not passed
                    tried.append(number)
                    if error is not None and len(tried) == 1:
                        raise error
            passed.append(number)
        except (guard_lib.RefusedError, OSError):
            failed.append(number)

    threads = [threading.Thread(target=work, args=[i]) for i in range(4)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join()
    is_away = isinstance(error, OSError)
    assert len(tried) == (2 if is_away else 1)
    assert len(failed) == (1 if is_away else refused)
    assert len(passed) == 4 - len(failed)
