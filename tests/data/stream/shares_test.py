"""Tests of dividing a batch among partitions."""

import numpy as np
import pytest

from monolith_tf.data.stream.events import Events
from monolith_tf.data.stream.events import OffsetRange
from monolith_tf.data.stream.shares import Shares


def learn(shares, partition, times):
    none = [None] * len(times)
    places = OffsetRange(partition, 0, len(times))
    shares.learn(
        Events(places, np.arange(len(times)), np.array(times), none, none, none)
    )


def test_unknown_times_divide_in_proportion():
    assert Shares().divide(10, {0: 30, 1: 10, 2: 0, 7: 60}) == {0: 3, 1: 1, 7: 6}


@pytest.mark.parametrize("seed", range(50))
def test_a_division_has_the_size_and_keeps_the_limits(seed):
    draw = np.random.default_rng(seed)
    shares = Shares()
    available = {p: int(n) for p, n in enumerate(draw.integers(0, 40, 6))}
    total = sum(available.values())
    for partition in available:
        if draw.random() < 0.9:
            begin = draw.integers(0, 1000)
            learn(shares, partition, begin + np.sort(draw.integers(0, 500, 20)))
    for size in range(total + 1):
        found = shares.divide(size, available) if size else {}
        assert sum(found.values()) == size
        assert all(0 <= n <= available[p] for p, n in found.items())


def test_the_partition_that_is_behind_is_read_first():
    shares = Shares()
    learn(shares, 0, [0, 100, 200])
    learn(shares, 1, [9_000, 9_100, 9_200])
    assert shares.divide(50, {0: 1000, 1: 1000})[0] == 50


def test_partitions_reach_the_same_time():
    shares = Shares()
    learn(shares, 0, np.linspace(0, 100, 11))  # One message in 10 ms.
    learn(shares, 1, np.linspace(0, 100, 101))  # Ten.
    found = shares.divide(110, {0: 1000, 1: 1000})
    assert found[0] == pytest.approx(10, abs=1)
    assert found[1] == pytest.approx(100, abs=1)


def test_a_time_far_ahead_does_not_stop_its_partition():
    shares = Shares(clock=lambda: 1000)
    learn(shares, 0, [999_000, 4_000_000_000_000])
    learn(shares, 1, [989_000, 990_000])
    taken = 0
    for second in range(990, 1010):
        divided = shares.divide(100, {0: 1000, 1: 1000})
        taken += divided[0]
        if divided[1]:
            times = second * 1000 + np.linspace(0, 1000, divided[1])
            learn(shares, 1, times)
    assert taken > 20
