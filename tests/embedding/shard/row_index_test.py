"""Tests of where rows are."""

import hypothesis
import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from hypothesis import strategies as st

from monolith_tf import ids as ids_lib
from monolith_tf import testing
from monolith_tf.embedding.shard.row_index import RowIndex

_SLOTS = (3, 5)
_CAPACITY = 48  # 32 places for each slot from 3 to 5.

_integers = st.one_of(
    st.integers(0, 40), st.integers(2**20, 2**20 + 5), st.integers(2**47, 2**47 + 5)
)
_keys = st.one_of(
    st.integers(-5, 140),
    st.sampled_from([2**20 - 1, 2**20, 2**63 - 1, -(2**63), (5 << 48) + 3]),
)
# A foreign slot below, between and above the tables'; a sign that no id should have.
_slots = st.sampled_from([*_SLOTS, 2, 4, 6, 32767, -32768 + 3])


def _ids(slots, integers):
    mixed = ids_lib.from_integers(np.array(integers, np.int64)).numpy()
    return (np.array(slots, np.int64) << ids_lib.HASH_BITS) | mixed


@st.composite
def _feature_ids(draw):
    pairs = draw(st.lists(st.tuples(_slots, _integers), max_size=12))
    return [int(x) for x in _ids([s for s, _ in pairs], [i for _, i in pairs])]


def _run(index, batches):
    """Compares with a dict: inserts, asks, removes every second, asks, clears."""
    find = tf.function(
        index.find, input_signature=[tf.TensorSpec([None], tf.int64)], autograph=False
    )
    expected, next_row = {}, 1
    everything = list(dict.fromkeys(key for batch in batches for key in batch))

    def check():
        for batch in [*batches, everything]:
            numbers = find(tf.constant(batch, tf.int64)).numpy()
            assert numbers.tolist() == [expected.get(key, 0) for key in batch]

    for number, batch in enumerate(batches):
        new = [key for key in dict.fromkeys(batch) if key not in expected]
        rows = list(range(next_row, next_row + len(new)))
        next_row += len(new)
        index.insert(tf.constant(new, tf.int64), tf.constant(rows, tf.int64))
        expected |= dict(zip(new, rows, strict=True))
        check()
        if number % 2:
            index.remove(tf.constant(new, tf.int64))
            for key in new:
                del expected[key]
            check()
    index.clear()
    expected.clear()
    check()


class RowIndexTest(testing.TestCase):
    @hypothesis.given(st.lists(_feature_ids(), min_size=1, max_size=4))
    @hypothesis.settings(max_examples=15, deadline=None)
    def test_feature_ids_are_found_like_those_of_a_dict(self, batches):
        _run(RowIndex(_SLOTS, _CAPACITY), batches)

    @hypothesis.given(st.lists(st.lists(_keys, max_size=12), min_size=1, max_size=4))
    @hypothesis.settings(max_examples=15, deadline=None)
    def test_integers_of_64_bits_are_found_like_those_of_a_dict(self, batches):
        _run(RowIndex(None, _CAPACITY), batches)

    def test_a_large_id_behind_the_sample_is_found(self):
        index = RowIndex(_SLOTS, _CAPACITY)
        ids = _ids([3] * 100, [*range(30), *range(2**30, 2**30 + 70)])
        index.insert(tf.constant(ids), tf.range(1, 101, dtype=tf.int64))
        numbers = index.find(tf.constant(np.tile(np.append(ids[:30], ids[99]), 3)))
        self.assertAllEqual(numbers, np.tile([*range(1, 31), 100], 3))

    def test_small_integers_are_read_from_their_places(self):
        index = RowIndex(_SLOTS, _CAPACITY)
        ids = tf.constant(_ids([3, 5], [0, 31]))
        index.insert(ids, tf.constant([1, 2], tf.int64))
        index._table.remove(ids)
        self.assertAllEqual(index.find(ids), [1, 2])

    @parameterized.parameters(
        ([3, 3, 3, 5, 5, 4, 3], [0, 31, 32, 31, 200, 40, 2**40], 5),
        (None, [0, 95, 96, 191, 192, -1, -(2**63)], 4),
    )
    def test_growth_gives_places_to_ids_that_are_there(
        self, slots, integers, num_placed
    ):
        index = RowIndex(_SLOTS if slots else None, _CAPACITY)
        ids = _ids(slots, integers) if slots else np.array(integers, np.int64)
        numbers = np.array([1, 3, 4, 5, 6, 7, 8])
        index.insert(tf.constant(ids), tf.constant(numbers))
        by_row = np.insert(ids, 1, -1)  # Row 2 is free.
        if slots is None:
            by_row[1] = 7
            index.insert(tf.constant([7], tf.int64), tf.constant([2], tf.int64))
        grow = tf.function(index.grow)
        grow(tf.constant(2 * _CAPACITY, tf.int64), tf.constant(by_row))
        self.assertEqual(int(index._num_places), 192)
        for id_, number in zip(ids, numbers, strict=True):
            self.assertEqual(index.find(tf.constant([id_], tf.int64))[0], number)
        index._table.remove(index._table.export()[0])
        places = index._places(tf.constant(ids)).numpy()
        has_place = (places >= 0) & (places < 192)
        self.assertEqual(has_place.sum(), num_placed)
        found = index.find(tf.constant(ids[has_place]))
        self.assertAllEqual(found, numbers[has_place])

    @parameterized.parameters(
        (96, False), (97, True), (1 << 20, True), (1 + (1 << 20), False)
    )
    def test_ids_are_of_use_for_growth_as_long_as_they_are_few(self, capacity, is_used):
        index = RowIndex([0], 96)
        ids = tf.constant([5, 3], tf.int64)
        before = int(index._num_places)
        capacity = tf.constant(capacity, tf.int64)
        self.assertEqual(index.has_use_for(capacity), is_used)
        self.assertEqual(index.grow(capacity, ids) > before, is_used)

    def test_places_take_memory_in_proportion_to_the_capacity_up_to_a_limit(self):
        def places(slots, capacity):
            return int(RowIndex(slots, capacity)._num_places)

        assert places([0], 1) == 2
        assert places([0], 1000) == 2000
        assert places([7, 8, 9], 3000) == 6000
        # Never more than 2^23, 32 MiB.
        assert places(range(26), 10**9) == 26 * (2**23 // 26)
        assert places([0, 32767], 10**9) == 32768 * 256
        assert places(None, 10**9) == 1 << 20
