"""Scores rows by windows of event time."""

import collections
import time
from collections.abc import Callable
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging

from monolith_tf.training import evaluation
from monolith_tf.types import Tensor

DEFAULT_SECS = 60.0

_MOST_AHEAD_SECS = 3600.0
_RECENT_BATCHES = 16


class ScoredWindow(NamedTuple):
    """Scores of the rows of one window.

    Attributes:
      begin: Its beginning, in milliseconds since 1970.
      end: Its end; the window does not contain it.
      rows: Rows in it.
      metrics: `<head>/<metric>` -> value, and the mean `loss` of their batches.
    """

    begin: int
    end: int
    rows: int
    metrics: dict[str, float]


class EventWindows:
    """Windows of equal length, from 1970 on.

    A window is over once event time has passed its end by the allowed lateness. Event
    time is that of the newest row in the partition that is behind, of those that the
    last batches are from. It never goes back.

    Attributes:
      late_rows: Rows that came after their window was over. They are trained on, and in
        no window.
      untimed_rows: Rows in no window, since they have no time, or one more than an hour
        ahead of this machine's clock, which must not end the windows before it.
    """

    def __init__(
        self,
        evaluator: evaluation.Evaluator,
        window_secs: float,
        lateness_secs: float,
        *,
        recent_batches: int = _RECENT_BATCHES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Makes it, without rows.

        Args:
          evaluator: Has the metrics.
          window_secs: Length of a window.
          lateness_secs: Allowed lateness.
          recent_batches: Batches whose partitions decide event time.
          clock: Returns the time, in seconds since 1970.
        """
        self._evaluator = evaluator
        self._length = max(round(window_secs * 1000), 1)
        self._lateness = round(lateness_secs * 1000)
        self._clock = clock
        self._open: dict[int, evaluation.Scores] = {}  # Begin -> scores.
        self._newest: dict[int, int] = {}  # Partition -> time of its newest row.
        self._recent: collections.deque[frozenset[int]] = collections.deque(
            maxlen=recent_batches
        )
        self._time = -1
        self.late_rows = self.untimed_rows = 0

    def add(
        self,
        found: dict[str, dict[str, Tensor]],
        times: np.ndarray,
        partitions: np.ndarray,
    ) -> None:
        """Adds the rows of a batch.

        Args:
          found: A result of `Evaluator.forward`, as NumPy arrays.
          times: Event times of its rows, milliseconds since 1970, int64 [rows]; -1 for
            none.
          partitions: Their partitions, integers [rows].
        """
        is_timed = (times >= 0) & (times <= (self._clock() + _MOST_AHEAD_SECS) * 1000)
        begins = np.where(is_timed, times - times % self._length, -1)
        is_late = is_timed & (begins + self._length + self._lateness <= self._time)
        self._count("untimed_rows", ~is_timed, times, "have no time, or one far ahead")
        self._count("late_rows", is_late, times, "came after their window was over")
        is_used = is_timed & ~is_late
        for begin in np.unique(begins[is_used]).tolist():
            scores = self._open.setdefault(begin, self._evaluator.scores())
            scores.add(_rows_of(found, is_used & (begins == begin)))
        self._advance(times[is_used], partitions[is_used])

    @property
    def has_ended(self) -> bool:
        """Whether a window is over."""
        return bool(self._open) and self._is_over(min(self._open))

    def ended(self) -> list[ScoredWindow]:
        """Returns the windows that are over, oldest first, and forgets them."""
        return self._taken(filter(self._is_over, self._open))

    def rest(self) -> list[ScoredWindow]:
        """Returns all windows with rows, oldest first, and forgets them."""
        return self._taken(self._open)

    def _taken(self, begins: Iterable[int]) -> list[ScoredWindow]:
        taken = [(begin, self._open.pop(begin)) for begin in sorted(begins)]
        return [
            ScoredWindow(begin, begin + self._length, scores.rows, scores.result())
            for begin, scores in taken
        ]

    def _is_over(self, begin: int) -> bool:
        return begin + self._length + self._lateness <= self._time

    def _advance(self, times: np.ndarray, partitions: np.ndarray) -> None:
        """Moves event time on."""
        seen = np.unique(partitions).tolist()
        for partition in seen:
            newest = int(times[partitions == partition].max())
            self._newest[partition] = max(newest, self._newest.get(partition, -1))
        if seen:
            self._recent.append(frozenset(seen))
        # The first batch may lack a partition that is behind.
        if len(self._recent) == self._recent.maxlen:
            recent = frozenset().union(*self._recent)
            behind = min(self._newest[partition] for partition in recent)
            self._time = max(self._time, behind)

    def _count(self, name: str, rows: np.ndarray, times: np.ndarray, why: str) -> None:
        """Counts rows that are in no window."""
        if not rows.any():
            return
        before = getattr(self, name)
        after = before + int(rows.sum())
        setattr(self, name, after)
        # At 1, 10, 100, ... rows.
        if not before or len(str(before)) < len(str(after)):
            logging.warning(
                "%d rows %s (the last has the time %d ms since 1970). They are trained "
                "on, but scored in no window.",
                after,
                why,
                times[rows][-1],
            )


def _rows_of(
    found: dict[str, dict[str, Tensor]], rows: np.ndarray
) -> dict[str, dict[str, Tensor]]:
    """Returns the results of some rows of a batch; its loss stays."""
    if rows.all():
        return found
    parts = tf.nest.map_structure(
        lambda array: array[rows], {k: v for k, v in found.items() if k != "loss"}
    )
    return {**parts, "loss": found["loss"]}
