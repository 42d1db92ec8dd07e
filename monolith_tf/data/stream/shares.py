"""Divides a batch among partitions, so that their event times advance together."""

import time
from collections.abc import Callable
from collections.abc import Mapping

import numpy as np

from monolith_tf.data.stream.events import Events

_HALVINGS = 60


class Shares:
    """Divides batches by the event times of the messages read so far.

    A partition whose messages are older gets more of a batch. If nothing is known of a
    partition, batches are divided in proportion to the messages that are available.
    A time ahead of this machine's clock counts as now: a wrong one must not stop its
    partition.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Makes it.

        Args:
          clock: Returns the time, in seconds since 1970.
        """
        self._clock = clock
        self._times: dict[int, float] = {}  # Of the last message, in milliseconds.
        self._rates: dict[int, float] = {}  # Messages per millisecond of event time.

    def learn(self, events: Events) -> None:
        """Takes event times from messages that were read."""
        times = np.minimum(events.times[events.times >= 0], self._clock() * 1000)
        if not len(times):
            return
        partition = events.range.partition
        last = float(times.max())
        before = self._times.get(partition, float(times.min()))
        self._rates[partition] = len(times) / max(last - before, 1e-3)
        self._times[partition] = max(last, before)

    def divide(self, size: int, available: Mapping[int, int]) -> dict[int, int]:
        """Returns partition -> messages to read; their sum is `size`.

        Args:
          size: Number of messages, at most the sum of `available`.
          available: Partition -> messages that can be read.
        """
        partitions = [p for p, number in available.items() if number]
        limits = np.array([available[p] for p in partitions], np.float64)
        if all(p in self._times for p in partitions):
            wanted = self._by_time(size, partitions, limits)
        else:
            wanted = limits * (size / limits.sum())
        return dict(zip(partitions, _whole(wanted, size, limits), strict=True))

    def _by_time(
        self, size: int, partitions: list[int], limits: np.ndarray
    ) -> np.ndarray:
        """Returns the messages before one time in all partitions, `size` in total."""
        times = np.array([self._times[p] for p in partitions])
        rates = np.array([self._rates[p] for p in partitions])
        low, high = times.min(), (times + limits / rates).max()
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if np.clip((middle - times) * rates, 0, limits).sum() < size:
                low = middle
            else:
                high = middle
        return np.clip((high - times) * rates, 0, limits)


def _whole(wanted: np.ndarray, size: int, limits: np.ndarray) -> list[int]:
    """Rounds to whole numbers within the limits that sum to `size`."""
    found = np.minimum(np.floor(wanted), limits)
    order = np.argsort(found - wanted, kind="stable")
    while (rest := size - int(found.sum())) > 0:
        free = order[found[order] < limits[order]][:rest]
        found[free] += 1
    while (rest := int(found.sum()) - size) > 0:
        used = order[::-1][found[order[::-1]] > 0][:rest]
        found[used] -= 1
    return [int(number) for number in found]
