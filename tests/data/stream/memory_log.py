"""A topic in memory, for tests."""

import numpy as np

from monolith_tf.data.stream.events import Bounds
from monolith_tf.data.stream.events import Events
from monolith_tf.data.stream.events import LostMessagesError


class MemoryLog:
    """Fulfils `EventLog`; tests append messages, and remove the oldest ones."""

    def __init__(self, partitions=1):
        self.values = {p: [] for p in range(partitions)}
        self.times = {p: [] for p in range(partitions)}
        self.low = dict.fromkeys(range(partitions), 0)
        self.committed = {}
        self.id = None

    def add_partition(self):
        number = len(self.values)
        self.values[number], self.times[number], self.low[number] = [], [], 0

    def send(self, values, partition=0, times=None):
        self.values[partition] += values
        self.times[partition] += list(times if times is not None else [0] * len(values))

    def bounds(self, positions):
        return {p: Bounds(self.low[p], len(v)) for p, v in self.values.items()}

    def offsets_at(self, milliseconds):
        found = {}
        for p, times in self.times.items():
            at = [
                i for i, t in enumerate(times) if t >= milliseconds and i >= self.low[p]
            ]
            found[p] = at[0] if at else len(times)
        return found

    def read(self, ranges):
        read = []
        for one in ranges:
            p, begin, end = one
            assert end <= len(self.values[p])
            if begin < self.low[p]:
                raise LostMessagesError(f"{one} is gone")
            read.append(
                Events(
                    one,
                    np.arange(begin, end),
                    np.array(self.times[p][begin:end], np.int64),
                    self.values[p][begin:end],
                    [None] * (end - begin),
                    [()] * (end - begin),
                )
            )
        return read

    def topic_id(self):
        return self.id

    def stop(self):
        pass

    def pass_to(self, offsets):
        pass

    def commit(self, offsets):
        self.committed.update(offsets)

    def close(self):
        pass
