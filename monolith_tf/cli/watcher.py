"""Shows what a running job reports."""

from collections.abc import Mapping

from monolith_tf.cli import progress
from monolith_tf.cli import tables as tables_lib
from monolith_tf.embedding.shard.sizing import TableInfo
from monolith_tf.experiment import watcher as watcher_lib
from monolith_tf.training import run as run_lib


class TrainingView(watcher_lib.Watcher):
    """Feeds a progress bar, or plain lines, from a run."""

    def __init__(self, view: progress.Lines | progress.Bar) -> None:
        self._view = view
        self._tables: list[TableInfo] | None = None

    def job(self, tables: list[TableInfo], run: run_lib.Run) -> None:
        """See base class."""
        if any(table.rows for table in tables):
            show_tables("Restored embedding tables", tables)
        self._view.begin(run.progress.step, run.total_steps)

    def steps(self, run: run_lib.Run) -> None:
        """See base class."""
        self._view.advance(run.progress.step)

    def line(self, run: run_lib.Run, values: Mapping[str, float]) -> None:
        """See base class."""
        self._view.report(run.progress.step, values)

    def end(self, run: run_lib.Run) -> None:
        """See base class."""
        # The parameter servers have ended when the result is shown.
        self._tables = run.step.network.store.describe()

    def show_result(self) -> None:
        """Prints what the tables hold at the end of the run."""
        if self._tables is not None:
            show_tables("Embedding tables after training", self._tables)


def show_tables(title: str, tables: list[TableInfo]) -> None:
    """Prints the ids and memory of tables, from the store's description."""
    rows = [
        [table.name, table.slot, table.dim, table.rows, tables_lib.size(table.bytes)]
        for table in tables
    ]
    tables_lib.show(title, ["table", "slot", "dim", "ids", "memory"], rows)
