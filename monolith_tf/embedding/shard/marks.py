"""Moments of a store, since which it can list what changed."""

import threading
import weakref
from collections.abc import Mapping
from collections.abc import Sequence

from monolith_tf.embedding.shard.shard import Shard


class Mark:
    """A moment of a store; `EmbeddingStore.mark` returns one.

    The store remembers removals since the oldest mark in use. A mark is in use until
    it is released, or nothing refers to it.

    Attributes:
      periods: Group name -> first period of each shard that is since the mark.
      saved: Step and id of each checkpoint on top of which the changes since the mark
        may be restored.
    """

    def __init__(
        self, periods: Mapping[str, tuple[int, ...]], saved: list[tuple[int, str]]
    ) -> None:
        self.periods = periods
        self.saved = saved
        self._is_released = False

    @property
    def is_released(self) -> bool:
        """Whether `release` was called."""
        return self._is_released

    def release(self) -> None:
        """Lets the store forget removals that no other mark needs."""
        self._is_released = True


class Marks:
    """The marks of a store that are in use.

    Args:
      shards: Group name -> shards.
    """

    def __init__(self, shards: Mapping[str, Sequence[Shard]]) -> None:
        self._shards = shards
        self._lock = threading.Lock()
        self._used: weakref.WeakSet[Mark] = weakref.WeakSet()

    def used(self) -> list[Mark]:
        """Returns the marks in use."""
        return [mark for mark in self._used if not mark.is_released]

    def check(self, mark: Mark) -> None:
        """Raises ValueError unless a mark is in use here."""
        if mark not in self._used or mark.is_released:
            raise ValueError(
                "`since` must be a mark of this store that is in use. Received: "
                f"since={mark}, "
                + ("which was released." if mark.is_released else "of another store.")
            )

    def make(self, saved: list[tuple[int, str]]) -> tuple[Mark, int]:
        """Begins a new period in every shard.

        Args:
          saved: See `Mark.saved`.

        Returns:
          The mark, and the last step of removals that are unknown from now on, or -1.
        """
        with self._lock:
            last_step = -1
            used = self.used()
            periods: dict[str, tuple[int, ...]] = {}
            for name, shards in self._shards.items():
                begun = []
                for place, shard in enumerate(shards):
                    oldest = min((m.periods[name][place] for m in used), default=None)
                    period, unknown = shard.begin_period(oldest)
                    begun.append(period)
                    last_step = max(last_step, unknown)
                periods[name] = tuple(begun)
            mark = Mark(periods, saved)
            self._used.add(mark)
            return mark, last_step
