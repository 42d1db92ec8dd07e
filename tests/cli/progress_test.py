import io
import logging

import pytest

from monolith_tf.cli import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_the_time_to_go_is_that_of_the_steps_so_far():
    clock = Clock()
    estimate = progress.Estimate(100, 500, clock)
    assert estimate.remaining_secs(100) is None
    clock.now += 20
    assert estimate.remaining_secs(200) == 300 * 20 / 100
    clock.now += 80
    assert estimate.remaining_secs(500) == 0
    assert estimate.remaining_secs(600) == 0


def test_without_a_last_step_there_is_no_time_to_go():
    clock = Clock()
    estimate = progress.Estimate(0, None, clock)
    clock.now += 20
    assert estimate.remaining_secs(10) is None


@pytest.mark.parametrize(
    ("secs", "text"),
    [(None, "-:--:--"), (0.4, "0:00:00"), (61, "0:01:01"), (36_125.6, "10:02:06")],
)
def test_durations(secs, text):
    assert progress.duration(secs) == text


def test_train_lines():
    values = {"loss": 0.43124, "examples_per_sec": 81234.4}
    slow = {"loss": 1e4, "examples_per_sec": 9.6}
    assert progress.train_line(5, None, slow, None) == (
        "train | step: 5 | loss: 10000.0000 | examples/sec: 10"
    )
    assert progress.train_line(12_000, None, values, None) == (
        "train | step: 12000 | loss: 0.4312 | examples/sec: 81234"
    )
    assert progress.train_line(20, None, {"loss": 1.0, "examples": 1280}, None) == (
        "train | step: 20 | loss: 1.0000 | examples: 1280"
    )
    assert progress.train_line(12_000, 20_000, values, 75.0) == (
        "train | step: 12000 | loss: 0.4312 | examples/sec: 81234 | done: 60% | "
        "eta: 0:01:15"
    )


def run(view):
    view.begin(0, 100)
    view.advance(50)
    view.report(50, {"loss": 0.5, "examples_per_sec": 2000.0})
    view.write("eval | step: 50 | auc: 0.7 [x]")
    view.end()


def test_plain_lines():
    stream = io.StringIO()
    view = progress.create(stream)
    run(view)
    train, evaluation = stream.getvalue().splitlines()
    assert train.startswith(
        "train | step: 50 | loss: 0.5000 | examples/sec: 2000 | done: 50% | eta: 0:00:0"
    )
    assert evaluation == "eval | step: 50 | auc: 0.7 [x]"


@pytest.mark.parametrize("last_step", [100, None])
def test_a_bar_on_a_terminal(last_step, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    view = progress.create(stream)
    assert isinstance(view, progress.Bar)
    view.begin(0, last_step)
    view.report(50, {"loss": 0.5, "examples_per_sec": 2000.0})
    view.write("eval | step: 50 | auc: 0.7 [x]")
    view.end()
    text = stream.getvalue()
    assert "eval | step: 50 | auc: 0.7 [x]" in text
    assert f"50/{last_step or '?'} steps" in text
    assert "loss 0.5000, 2,000 examples/s" in text


def record(level, message, path="/monolith_tf/training/actions.py"):
    return logging.LogRecord("absl", level, path, 0, message, (), None)


def test_log_lines_go_through_the_view():
    stream = io.StringIO()
    handler = progress.LogHandler(progress.Lines(stream))
    for level, message in (
        (logging.INFO, "eval | step: 5 | auc: 0.7"),
        (logging.INFO, "train | step: 5 | loss: 0.4"),
        (logging.WARNING, "Skipping a checkpoint"),
    ):
        handler.emit(record(level, message))
    assert stream.getvalue() == (
        "eval | step: 5 | auc: 0.7\nwarning: Skipping a checkpoint\n"
    )


def test_what_tensorflow_logs_is_shown_when_asked_for():
    for verbose, shown in ((False, ""), (True, "Sharding callback\n")):
        stream = io.StringIO()
        handler = progress.LogHandler(progress.Lines(stream), verbose=verbose)
        path = "/lib/site-packages/tensorflow/python/saver.py"
        handler.emit(record(logging.INFO, "Sharding callback", path))
        assert stream.getvalue() == shown
        handler.emit(record(logging.WARNING, "careful", path))
        assert stream.getvalue() == shown + "warning: careful\n"
