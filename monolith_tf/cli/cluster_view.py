"""Shows a cluster job: a table on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import TextIO

from monolith_tf.cli import progress
from monolith_tf.cli import tables
from monolith_tf.types import JsonDict

if TYPE_CHECKING:
    from monolith_tf.launch import status as status_lib
    from monolith_tf.launch.states import TaskState

_EVERY_SECS = 1.0


class ClusterLines(progress.Lines):
    """Plain lines: task events, and the metrics that tasks record."""

    def __init__(
        self,
        stream: TextIO,
        status: "status_lib.Status",
        metrics: Sequence["status_lib.MetricsTail"],
    ) -> None:
        super().__init__(stream)
        self._status = status
        self._metrics = metrics
        self._total: int | None = None
        self._next = 0.0

    def watch(self, states: Mapping[str, "TaskState"], pids: Mapping[str, int]) -> None:
        """Shows the current state, at most once a second."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY_SECS
            self.show(states, pids)

    def show(self, states: Mapping[str, "TaskState"], pids: Mapping[str, int]) -> None:
        """Shows the current state."""
        del states
        self._look(pids)
        for record in self._records():
            self.write(self._line(record))

    def _look(self, pids: Mapping[str, int]) -> None:
        """Starts an estimate of the remaining time at the chief's step."""
        chief = self._status.chief(pids)
        if chief is not None and chief.get("state") == "running":
            total, step = chief.get("total_steps"), chief.get("step", 0)
            if self._estimate is None or total != self._total:
                self._total = total
                self.begin(step, total)

    def _records(self) -> Iterator[JsonDict]:
        """Yields the metrics recorded since the last call."""
        for metrics in self._metrics:
            yield from metrics.read()

    def _line(self, record: JsonDict) -> str:
        phase, step = record.pop("phase"), record.pop("step")
        values = {k: v for k, v in record.items() if isinstance(v, int | float)}
        if phase == "train":
            estimate = self._estimate
            remaining = estimate.remaining_secs(step) if estimate else None
            return progress.train_line(step, self._total, values, remaining)
        shown = [progress.named(name, value, 5) for name, value in values.items()]
        return " | ".join([phase, f"step: {step}", *shown])


class ClusterTable(ClusterLines):
    """A table at the bottom of the terminal; lines scroll above it."""

    def __init__(
        self,
        stream: TextIO,
        status: "status_lib.Status",
        metrics: Sequence["status_lib.MetricsTail"],
    ) -> None:
        super().__init__(stream, status, metrics)
        from rich import console
        from rich import live

        self._console = console.Console(file=stream)
        self._live = live.Live(console=self._console, auto_refresh=False)
        self._live.start()

    def show(self, states: Mapping[str, "TaskState"], pids: Mapping[str, int]) -> None:
        """See base class."""
        from rich import box
        from rich import table as rich_table
        from rich import text

        self._look(pids)
        for record in self._records():
            if record["phase"] != "train":
                self.write(self._line(record))
        table = rich_table.Table(box=box.SIMPLE_HEAD)
        for header in ("task", "state", "steps", "examples/s", "restarts"):
            words = header in ("task", "state")
            table.add_column(header, justify="left" if words else "right")
        for row in self._status.rows(states, pids):
            steps = tables.cell(row.steps)
            if row.name == "chief" and row.steps is not None and self._total:
                steps += f"/{tables.cell(self._total)}"
            per_sec = row.examples_per_sec
            rate = "-" if per_sec is None else f"{per_sec:,.0f}"
            cells = (row.name, row.state, steps, rate, str(row.restarts))
            table.add_row(*map(text.Text, cells))
        self._live.update(table, refresh=True)

    def write(self, line: str) -> None:
        """See base class."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def end(self) -> None:
        """See base class."""
        self._live.stop()


def create(
    status: "status_lib.Status",
    metrics: Sequence["status_lib.MetricsTail"],
    stream: TextIO | None = None,
) -> ClusterLines:
    """Returns a table where `stream` (standard error by default) is a terminal."""
    stream = stream or sys.stderr
    kind = ClusterTable if stream.isatty() else ClusterLines
    return kind(stream, status, metrics)
