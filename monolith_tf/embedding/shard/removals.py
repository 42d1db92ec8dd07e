"""Ids that lost their row, for as long as anyone may ask for them."""

from typing import NamedTuple

import numpy as np

_AT_NO_STEP = -1


class _Removal(NamedTuple):
    """Ids that lost their row at one time.

    Attributes:
      period: The shard's period.
      step: The global step; `_AT_NO_STEP` if questions by step must not find it.
      ids: The ids.
    """

    period: int
    step: int
    ids: np.ndarray


class Removals:
    """The removals of a shard that tracks updates; its lock guards them."""

    def __init__(self) -> None:
        self._parts: list[_Removal] = []
        self._has_marks = False

    def add(self, period: int, step: int, ids: np.ndarray) -> None:
        """Adds removals in a period, at a step."""
        self._parts.append(_Removal(period, step, ids))

    def add_all(self, period: int, ids: np.ndarray) -> None:
        """Adds the removal of all rows; what was removed at earlier steps is unknown.

        Args:
          period: The period.
          ids: All ids with a row.
        """
        kept = self._parts if self._has_marks else []
        self._parts = [part._replace(step=_AT_NO_STEP) for part in kept]
        if self._has_marks:
            self.add(period, _AT_NO_STEP, ids)

    def since(self, period: int) -> np.ndarray:
        """Returns the distinct ids that were removed in a period or later, sorted."""
        return _distinct([part.ids for part in self._parts if part.period >= period])

    def since_step(self, step: int) -> np.ndarray:
        """Returns the distinct ids that were removed at a step or later, sorted."""
        return _distinct([part.ids for part in self._parts if part.step >= step])

    def forget(self, before_period: int, *, has_marks: bool) -> int:
        """Frees what was removed before a period.

        Args:
          before_period: The period.
          has_marks: Whether later ones will be asked for by their period.

        Returns:
          The last step at which something that is now unknown was removed, or -1.
        """
        self._has_marks = has_marks
        gone = [part.step for part in self._parts if part.period < before_period]
        self._parts = [part for part in self._parts if part.period >= before_period]
        return max(gone, default=_AT_NO_STEP)

    def forget_steps(self, before_step: int) -> None:
        """Makes unknown by step what was removed before one; frees it without marks."""
        kept = [part for part in self._parts if part.step >= before_step]
        if self._has_marks:
            kept = [
                part if part.step >= before_step else part._replace(step=_AT_NO_STEP)
                for part in self._parts
            ]
        self._parts = kept


def _distinct(parts: list[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate([np.zeros([0], np.int64), *parts]))
