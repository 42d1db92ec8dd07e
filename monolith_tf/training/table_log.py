"""Logs and records the counters of embedding tables."""

from absl import logging

from monolith_tf.training import actions
from monolith_tf.training import run as run_lib


class TableLog(actions.EverySteps):
    """Records each table's counters, and warns if something was lost.

    `metrics.jsonl` and TensorBoard get a record of the phase `tables` with
    `<table>/<counter>` for each counter of `EmbeddingStore.table_counters`. The log
    gets a line if gradients were dropped because admission refused their ids, and a
    warning for each table that lost updates in any other way.
    """

    needs_quiet = False
    is_quick = True

    def __init__(self, every: int) -> None:
        super().__init__(every, at_end=True)
        self._last: dict[str, dict[str, int]] = {}

    def begin(self, run: run_lib.Run) -> None:
        """See base class."""
        super().begin(run)
        self._last = run.step.network.store.table_counters()

    def work(self, run: run_lib.Run) -> None:
        """See base class."""
        tables = run.step.network.store.table_counters()
        run.record(
            "tables",
            {
                f"{table}/{name}": value
                for table, counters in tables.items()
                for name, value in counters.items()
            },
        )
        moved = {
            table: {n: value - self._last[table][n] for n, value in counters.items()}
            for table, counters in tables.items()
        }
        self._last = tables
        refused = sum(change["refused"] for change in moved.values())
        if refused:
            logging.info(
                "tables | step: %d | refused by admission: %d | gradients dropped: %d",
                run.progress.step,
                refused,
                sum(change["dropped"] for change in moved.values()),
            )
        for table, change in moved.items():
            # An id that admission refused has no row for its gradient either.
            unexplained = change["dropped"] - change["refused"]
            if change["overflow"] or unexplained > 0:
                logging.warning(
                    "tables | step: %d | `%s` lost updates: %d ids had no space, and "
                    "%d gradients had no row.",
                    run.progress.step,
                    table,
                    change["overflow"],
                    max(0, unexplained),
                )
