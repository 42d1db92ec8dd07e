"""The progress of a run: a bar on a terminal, plain lines elsewhere."""

import logging as std_logging
import re
import sys
import time
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import TextIO

from absl import logging

_TENSORFLOW = re.compile(r"[/\\](tensorflow|tf_keras)[/\\]")


class Estimate:
    """The time a run still needs, from the steps taken since it began."""

    def __init__(
        self,
        step: int,
        total_steps: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first_step = step
        self._total_steps = total_steps
        self._clock = clock
        self._begin = clock()

    def remaining_secs(self, step: int) -> float | None:
        """Returns the remaining seconds at `step`, or None if not known."""
        taken = step - self._first_step
        if self._total_steps is None or taken <= 0:
            return None
        secs_per_step = (self._clock() - self._begin) / taken
        return max(self._total_steps - step, 0) * secs_per_step


def duration(secs: float | None) -> str:
    """Returns a time span such as `1:02:03`; `-:--:--` if not known."""
    if secs is None:
        return "-:--:--"
    whole = round(secs)
    return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"


def named(name: str, value: float, digits: int) -> str:
    """Returns a number with its name; integers have no decimals."""
    is_whole = isinstance(value, int)
    return f"{name}: {value}" if is_whole else f"{name}: {value:.{digits}f}"


def train_line(
    step: int,
    total_steps: int | None,
    values: Mapping[str, float],
    remaining_secs: float | None,
) -> str:
    """Returns the log line of some training steps."""
    parts = [f"train | step: {step}"]
    for name, value in values.items():
        is_rate = name == "examples_per_sec"
        shown = f"examples/sec: {value:.0f}" if is_rate else named(name, value, 4)
        parts.append(shown)
    line = " | ".join(parts)
    if total_steps:
        line += f" | done: {min(step / total_steps, 1):.0%}"
        line += f" | eta: {duration(remaining_secs)}"
    return line


class Lines:
    """Plain lines, one per log interval."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._estimate: Estimate | None = None
        self._total_steps: int | None = None

    def begin(self, step: int, total_steps: int | None) -> None:
        """Receives the first and last step of a run."""
        self._estimate = Estimate(step, total_steps)
        self._total_steps = total_steps

    def advance(self, step: int) -> None:
        """Receives the step that the run has reached."""

    def report(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the numbers of a log interval."""
        remaining = self._estimate.remaining_secs(step) if self._estimate else None
        self.write(train_line(step, self._total_steps, values, remaining))

    def write(self, line: str) -> None:
        """Shows another line."""
        self._stream.write(line + "\n")
        self._stream.flush()

    def end(self) -> None:
        """Ends the view when the run is over."""


class Bar:
    """A progress bar with the remaining time; other lines scroll above it."""

    def __init__(self, stream: TextIO) -> None:
        from rich import console
        from rich import progress

        self._console = console.Console(file=stream)
        self._bar = progress.Progress(
            progress.TextColumn("train"),
            progress.BarColumn(),
            progress.TextColumn("{task.completed:,.0f}/{task.fields[last]} steps"),
            progress.TextColumn("{task.fields[values]}"),
            progress.TextColumn("eta {task.fields[eta]}"),
            console=self._console,
        )
        self._task: Any = None
        self._estimate: Estimate | None = None

    def begin(self, step: int, total_steps: int | None) -> None:
        """See `Lines.begin`."""
        self._estimate = Estimate(step, total_steps)
        self._task = self._bar.add_task(
            "train",
            total=total_steps,
            completed=step,
            last="?" if total_steps is None else f"{total_steps:,}",
            values="",
            eta=duration(None),
        )
        self._bar.start()

    def advance(self, step: int) -> None:
        """See `Lines.advance`."""
        if self._estimate is not None:
            eta = duration(self._estimate.remaining_secs(step))
            self._bar.update(self._task, completed=step, eta=eta)

    def report(self, step: int, values: Mapping[str, float]) -> None:
        """See `Lines.report`."""
        self.advance(step)
        shown = f"loss {values.get('loss', float('nan')):.4f}"
        if "examples_per_sec" in values:
            shown += f", {values['examples_per_sec']:,.0f} examples/s"
        self._bar.update(self._task, values=shown)

    def write(self, line: str) -> None:
        """See `Lines.write`."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def end(self) -> None:
        """See `Lines.end`."""
        self._bar.stop()


def create(stream: TextIO | None = None) -> Lines | Bar:
    """Returns a bar where `stream` (standard error by default) is a terminal."""
    stream = stream or sys.stderr
    return Bar(stream) if stream.isatty() else Lines(stream)


class LogHandler(std_logging.Handler):
    """Sends log lines through a view, so that they do not break its bar.

    The trainer's `train | ...` lines are left out, since the view shows their values.
    So are TensorFlow's messages, unless they are warnings.
    """

    def __init__(self, view: Lines | Bar, *, verbose: bool = False) -> None:
        super().__init__()
        self._view = view
        self._verbose = verbose

    def emit(self, record: std_logging.LogRecord) -> None:
        """Shows one record."""
        message = record.getMessage()
        if message.startswith("train | "):
            return
        is_warning = record.levelno >= std_logging.WARNING
        is_foreign = _TENSORFLOW.search(record.pathname) is not None
        if is_foreign and not is_warning and not self._verbose:
            return
        if is_warning:
            message = f"{record.levelname.lower()}: {message}"
        self._view.write(message)


def attach_log(view: Lines | Bar, *, verbose: bool = False) -> None:
    """Sends absl's log to a view and nowhere else."""
    logger = logging.get_absl_logger()
    logger.handlers = [LogHandler(view, verbose=verbose)]
    logger.propagate = False
