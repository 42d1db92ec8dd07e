"""Actions between steps: logging, evaluation, checkpoints."""

import types
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

from absl import logging

from monolith_tf.training import due as due_lib
from monolith_tf.training import event_windows
from monolith_tf.training import judges as judges_lib
from monolith_tf.training import run as run_lib
from monolith_tf.training.due import Interval as Interval


class Action:
    """Runs at certain steps.

    Users' own actions subclass this and are named in `trainer.actions`.

    Attributes:
      needs_quiet: Whether no worker may train while it acts. Otherwise a cluster
        continues to train, and the action may be called some steps late.
      is_quick: Whether it acts even at the step at which the run is interrupted. Slow
        actions act first when the run resumes.
    """

    needs_quiet = True
    is_quick = False

    def begin(self, run: run_lib.Run) -> None:
        """Called once, before the first step, after a checkpoint was restored."""

    def next_step(self, step: int) -> int | None:
        """Returns the first step after `step` at which `act` is due, or None."""
        del step
        return None

    def act(self, run: run_lib.Run) -> None:
        """Called when the step that `next_step` named is reached."""

    def end(self, run: run_lib.Run) -> None:
        """Called once, when the run finishes or is interrupted, not after an error."""


class EverySteps(Action):
    """Acts when the step is a multiple of a number.

    Args:
      every: The number, or several numbers.
      at_end: Whether it also acts at the run's end.
    """

    def __init__(
        self, every: int | Interval | Sequence[int | Interval], *, at_end: bool = False
    ) -> None:
        self._every = _intervals(every)
        if any(interval.steps < 1 for interval in self._every):
            raise ValueError(f"`every` must be at least 1. Received: every={every}.")
        self._at_end = at_end
        self._acted_at = -1

    def begin(self, run: run_lib.Run) -> None:
        """See base class."""
        is_overdue = type(self).__name__ in run.progress.overdue
        self._acted_at = -1 if is_overdue else run.progress.step

    def next_step(self, step: int) -> int | None:
        """See base class."""
        return min(every.next_step(step) for every in self._every)

    def act(self, run: run_lib.Run) -> None:
        """See base class."""
        if run.progress.step != self._acted_at:
            self._acted_at = run.progress.step
            self.work(run)

    def end(self, run: run_lib.Run) -> None:
        """See base class."""
        if self._at_end and not run.progress.is_interrupted:
            self.act(run)

    def work(self, run: run_lib.Run) -> None:
        """Does the work; called at most once per step."""
        raise NotImplementedError(f"`{type(self).__name__}` defines no `work`.")


class Log(EverySteps):
    """Writes the log line and the `train` records of `metrics.jsonl`."""

    needs_quiet = False
    is_quick = True

    def __init__(
        self, every: int, on_line: Callable[[run_lib.Run, dict], None] | None = None
    ) -> None:
        super().__init__(every, at_end=True)
        self._on_line = on_line

    def work(self, run: run_lib.Run) -> None:
        """See base class."""
        window = run.window
        if not window.steps:
            return
        rate = window.examples / max(window.seconds, 1e-9)
        values = {
            "loss": window.loss_sum / window.steps,
            "examples_per_sec": round(rate, 1),
            "examples": run.progress.examples,
            **{
                f"loss/{name}": value / window.steps
                for name, value in window.auxiliary.items()
            },
        }
        if window.norm:
            values["gradient_norm"] = window.norm
        run.record("train", values)
        logging.info(
            "train | step: %d | loss: %.4f | examples/sec: %.0f",
            run.progress.step,
            values["loss"],
            rate,
        )
        if self._on_line is not None:
            self._on_line(run, values)
        run.window = run_lib.Window()


class Evaluate(EverySteps):
    """Scores the eval split and passes the metrics to judges."""

    def __init__(
        self,
        every: int | Interval | Sequence[int | Interval],
        judges: Sequence[judges_lib.Judge] = (),
        *,
        is_quick: bool = False,
    ) -> None:
        super().__init__(every, at_end=True)
        self._judges = tuple(judges)
        self.is_quick = is_quick

    def work(self, run: run_lib.Run) -> None:
        """See base class."""
        _report(run, run.evaluate("eval"), self._judges)


class EvaluateWindows(Action):
    """Passes the scores of each window of event time to judges, once it is over."""

    is_quick = True

    def __init__(
        self,
        windows: event_windows.EventWindows,
        judges: Sequence[judges_lib.Judge] = (),
        *,
        is_seldom: bool = False,
    ) -> None:
        """Makes the action.

        Args:
          windows: The windows.
          judges: Get their scores.
          is_seldom: Whether it is due only once a window is over, so that the workers
            of a cluster need not rest after each step.
        """
        self._windows = windows
        self._is_seldom = is_seldom
        self._judges = tuple(judges)

    def next_step(self, step: int) -> int | None:
        """See base class."""
        if self._is_seldom:
            return step if self._windows.has_ended else None
        return step + 1

    def act(self, run: run_lib.Run) -> None:
        """See base class."""
        if self._windows.has_ended:
            self._report(run, self._windows.ended())

    def end(self, run: run_lib.Run) -> None:
        """See base class."""
        if not run.progress.is_interrupted:
            self._report(run, self._windows.rest())

    def _report(
        self, run: run_lib.Run, windows: Sequence[event_windows.ScoredWindow]
    ) -> None:
        for window in windows:
            more = {
                "begin_secs": window.begin / 1000,
                "end_secs": window.end / 1000,
                "rows": window.rows,
                "late_rows": self._windows.late_rows,
                "untimed_rows": self._windows.untimed_rows,
            }
            _report(run, window.metrics, self._judges, more)


def _report(
    run: run_lib.Run,
    metrics: dict[str, float],
    judges: Sequence[judges_lib.Judge],
    more: Mapping[str, float] = types.MappingProxyType({}),
) -> None:
    """Records the metrics of an evaluation, and passes them to judges.

    Args:
      run: The run.
      metrics: The metrics.
      judges: The judges.
      more: Numbers to record that are no metrics.
    """
    judges_lib.note_evaluated(run)
    run.progress.metrics = metrics
    run.record("eval", {**metrics, **more})
    shown = [f"{name}: {value:.5f}" for name, value in metrics.items()]
    shown += [f"{name}: {value:.15g}" for name, value in more.items()]
    logging.info("eval | step: %d | %s", run.progress.step, " | ".join(shown))
    for judge in judges:
        judge.judge(run, metrics)


class SaveCheckpoint(Action):
    """Writes checkpoints at intervals, and when the run ends."""

    def __init__(
        self,
        every_steps: Sequence[int | Interval],
        every_secs: float | None,
        *,
        every_event_secs: float | None = None,
        deltas: due_lib.Due | None = None,
        event_time: Callable[[], float] = float,
    ) -> None:
        """Makes the action.

        Args:
          every_steps: Any number of intervals between whole checkpoints.
          every_secs: Seconds between them, or None.
          every_event_secs: Seconds between them by the time of events, or None.
          deltas: When deltas are written in between; None writes none.
          event_time: Returns the time of the newest event in seconds; 0 if not known.
        """
        self._whole = due_lib.Due(
            _intervals(every_steps), every_secs, every_event_secs, event_time
        )
        self._deltas = deltas
        self._saved_at = -1
        self._run: run_lib.Run | None = None

    def begin(self, run: run_lib.Run) -> None:
        """See base class."""
        self._run = run
        self._saved_at = run.progress.step
        self._whole.restart(run.progress.step)
        if self._deltas is not None:
            self._deltas.restart(run.progress.step)

    def next_step(self, step: int) -> int | None:
        """See base class."""
        if self._run is not None and self._run.copy_is_through:
            return step + 1
        kinds = (self._whole, self._deltas)
        steps = [kind.next_step(step) for kind in kinds if kind is not None]
        return min((at for at in steps if at is not None), default=None)

    def act(self, run: run_lib.Run) -> None:
        """See base class."""
        step = run.progress.step
        if step == self._saved_at:
            return
        is_whole = run.copy_is_through
        if not is_whole and (self._deltas is None or self._whole.is_due(step)):
            self._whole.restart(step)
            if run.begin_copy():
                return  # Steps go on until it is through.
            is_whole = True
        run.want_checkpoint(is_whole=is_whole)
        self._saved_at = step
        if self._deltas is not None:
            self._deltas.restart(step)

    def end(self, run: run_lib.Run) -> None:
        """See base class."""
        run.want_checkpoint()


def _intervals(
    every: int | Interval | Sequence[int | Interval],
) -> tuple[Interval, ...]:
    # An `Interval` is itself a tuple.
    several = [every] if isinstance(every, int | Interval) else every
    return tuple(e if isinstance(e, Interval) else Interval(e) for e in several)
