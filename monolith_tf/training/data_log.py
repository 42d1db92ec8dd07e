"""Logs and records what was skipped or changed in the data."""

from collections.abc import Callable
from collections.abc import Mapping

from absl import logging

from monolith_tf.training import actions
from monolith_tf.training import run as run_lib


class DataLog(actions.EverySteps):
    """Records the readers' counts of skipped and changed values when they change.

    `metrics.jsonl` and TensorBoard get a record of the phase `data`, and the log a line
    with the counts that changed.

    Args:
      every: Steps between checks.
      counts: Returns the readers' counts, by name.
    """

    needs_quiet = False
    is_quick = True

    def __init__(self, every: int, counts: Callable[[], Mapping[str, int]]) -> None:
        super().__init__(every, at_end=True)
        self._read = counts
        self._last: dict[str, int] = {}

    def begin(self, run: run_lib.Run) -> None:
        """See base class."""
        super().begin(run)
        self._last = _clipped(run)

    def work(self, run: run_lib.Run) -> None:
        """See base class."""
        counts = {**self._read(), **_clipped(run)}
        moved = {n: v for n, v in counts.items() if v != self._last.get(n, 0)}
        self._last = counts
        if not moved:
            return
        run.record("data", counts)
        logging.info(
            "data | step: %d | %s",
            run.progress.step,
            " | ".join(f"{name}: {value}" for name, value in moved.items()),
        )


def _clipped(run: run_lib.Run) -> dict[str, int]:
    return {f"train/clipped/{name}": n for name, n in run.progress.clipped.items()}
