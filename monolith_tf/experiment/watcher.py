"""What a user interface learns of a running job."""

from collections.abc import Mapping

from monolith_tf.embedding.shard.sizing import TableInfo
from monolith_tf.training import judges
from monolith_tf.training import run as run_lib


class Watcher:
    """Callbacks of a running job for a user interface; does nothing by default."""

    def job(self, tables: list[TableInfo], run: run_lib.Run) -> None:
        """Called once, before the first step, with the store's tables."""

    def steps(self, run: run_lib.Run) -> None:
        """Called after every call of the loop."""

    def line(self, run: run_lib.Run, values: Mapping[str, float]) -> None:
        """Called with every log line's values."""

    def metrics(self, run: run_lib.Run, metrics: Mapping[str, float]) -> None:
        """Called with every evaluation's metrics."""

    def end(self, run: run_lib.Run) -> None:
        """Called once, when training has finished normally."""


class ReportEvaluations(judges.Judge):
    """Reports every evaluation to the watcher."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def judge(self, run: run_lib.Run, metrics: Mapping[str, float]) -> None:
        """See base class."""
        self._watcher.metrics(run, metrics)
