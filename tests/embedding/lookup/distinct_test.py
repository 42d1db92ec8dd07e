"""Tests of the distinct ids of a batch."""

from unittest import mock

import hypothesis
import numpy as np
import tensorflow as tf
from hypothesis import strategies as st

from monolith_tf import testing
from monolith_tf.embedding.lookup import distinct
from monolith_tf.ids import HASH_BITS

_LAST_SLOT = (1 << 15) - 1


def _check(pieces, slots):
    """Compares with NumPy: every id once, its count, and where each stands."""
    occurrences = np.concatenate(pieces)
    found = distinct.distinct(
        [tf.constant(piece, tf.int64) for piece in pieces], slots, with_counts=True
    )
    ids, counts = np.unique(occurrences, return_counts=True)
    order = np.argsort(found.ids)
    np.testing.assert_array_equal(found.ids.numpy()[order], ids)
    np.testing.assert_array_equal(found.counts.numpy()[order], counts)
    np.testing.assert_array_equal(tf.gather(found.ids, found.inverse), occurrences)
    assert found.inverse.dtype == tf.int32


class DistinctTest(testing.TestCase):
    @hypothesis.given(
        st.lists(
            st.tuples(st.integers(0, 40), st.lists(st.integers(0, 5), max_size=6)),
            min_size=1,
            max_size=40,
        )
    )
    @hypothesis.settings(max_examples=30, deadline=None)
    def test_every_id_stands_once_whatever_the_order_of_the_slots(self, features):
        slots = [slot for slot, _ in features]
        pieces = [
            np.array(hashes, np.int64) + (slot << HASH_BITS)
            for slot, hashes in features
        ]
        _check(pieces, slots)

    def test_an_id_of_a_foreign_slot_stands_once_too(self):
        slots = [1, 2, 3]
        own = [np.array([5, 6, 5]) + (slot << HASH_BITS) for slot in slots]
        for foreign in (7, (2 << HASH_BITS) + 5, -1, (_LAST_SLOT << HASH_BITS) + 1):
            for place in range(3):
                pieces = list(own)
                pieces[place] = np.append(own[place], foreign)
                pieces[0] = np.append(pieces[0], foreign)
                _check(pieces, slots)

    def test_ids_of_their_own_slots_are_gone_through_once(self):
        pieces = [np.array([0, 7, 1 << 40]) + (slot << HASH_BITS) for slot in (1, 2)]
        with mock.patch.object(distinct, "_merged") as merged:
            _check(pieces, [1, 2])
        merged.assert_not_called()

    def test_the_highest_ids_of_the_last_slot_are_within(self):
        top = np.array([(1 << 63) - 1, (1 << 63) - 1, (1 << 63) - 2])
        _check([top, np.array([3, 3])], [_LAST_SLOT, 0])

    def test_the_number_of_operations_has_a_bound(self):
        def count(features):
            specs = [tf.TensorSpec([None], tf.int64)] * features
            function = tf.function(
                lambda *pieces: distinct.distinct(
                    pieces, range(features), with_counts=False
                )
            )
            graph = function.get_concrete_function(*specs).graph
            return sum(op.type == "Unique" for op in graph.get_operations())

        self.assertEqual(count(1), 1)
        self.assertLessEqual(count(40), 32)
        self.assertEqual(count(40), count(100))
