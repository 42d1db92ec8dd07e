import itertools
import threading

import pytest

from monolith_tf.serving import shared_reading


class _Counting:
    """Yields numbers, and counts how often it was started and advanced."""

    def __init__(self, size):
        self.size = size
        self.started = self.given = 0

    def __call__(self):
        self.started += 1
        for number in range(self.size):
            self.given += 1
            yield number


def test_those_that_keep_together_share_one_reading():
    source = _Counting(10)
    shared = shared_reading.SharedReading(source, window=2)
    pairs = list(zip(shared, shared, strict=True))
    assert pairs == [(number, number) for number in range(10)]
    assert (source.started, source.given) == (1, 10)


def test_who_is_far_behind_reads_the_rest_for_itself():
    source = _Counting(10)
    shared = shared_reading.SharedReading(source, window=3)
    slow = iter(shared)
    assert next(slow) == 0
    assert list(shared) == list(range(10))
    assert source.started == 1
    assert list(slow) == list(range(1, 10))
    assert source.started == 2
    # A thread behind by at most the window does not.
    shared = shared_reading.SharedReading(source, window=10)
    assert list(shared) == list(shared) == list(range(10))
    assert source.started == 3


def test_threads_get_all_items():
    source = _Counting(2000)
    shared = shared_reading.SharedReading(source, window=4)
    found = [[] for _ in range(6)]
    threads = [
        threading.Thread(target=lambda out=out: out.extend(shared)) for out in found
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert all(out == list(range(2000)) for out in found)


def test_what_cannot_be_read_is_no_end_for_anybody():
    def read():
        yield from range(3)
        raise ValueError("damaged")

    shared = shared_reading.SharedReading(read, window=1)
    for _ in range(3):
        found = []
        with pytest.raises(ValueError, match="damaged"):
            found.extend(itertools.chain(shared))
    shared = shared_reading.SharedReading(read, window=9)
    for _ in range(2):
        numbers = iter(shared)
        assert [next(numbers) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="damaged"):
            next(numbers)
