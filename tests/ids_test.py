import random

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from monolith_tf import ids

LIMIT = 1 << 48
INT64 = st.integers(-(2**63), 2**63 - 1)


def splitmix64_of(state):
    """The published reference code of splitmix64, one step from `state`."""
    z = (state + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


class IdsTest(tf.test.TestCase):
    @settings(deadline=None, derandomize=True, max_examples=30)
    @given(st.lists(INT64, min_size=1, max_size=50))
    def test_tensorflow_and_python_agree_on_every_int64(self, values):
        hashed = ids.from_integers(np.array(values, np.int64))
        self.assertEqual(hashed.numpy().tolist(), [ids.hash_integer(v) for v in values])
        self.assertTrue(np.all((hashed >= 0) & (hashed < LIMIT)))

    @settings(deadline=None, derandomize=True, max_examples=300)
    @given(st.integers(0, LIMIT - 1))
    def test_bijection_has_an_inverse_on_both_sides(self, value):
        self.assertEqual(ids.to_integer(ids.hash_integer(value)), value)
        self.assertEqual(ids.hash_integer(ids.to_integer(value)), value)

    def test_tensors_of_hashes_are_inverted_too(self):
        values = np.array([0, 1, 77, 2**24, 2**47 + 5, LIMIT - 1], np.int64)
        hashed = [ids.hash_integer(int(value)) for value in values]
        self.assertAllEqual(ids.to_integers(hashed), values)

    def test_folded_integers_have_the_hashes_of_the_others(self):
        inside = tf.constant([[0, LIMIT - 1]], tf.int64)
        outside = tf.constant([-1, LIMIT, 5], tf.int64)
        self.assertAllEqual(ids.folded([inside], [True])[0], inside)
        for values, folded in zip(
            (inside, outside), ids.folded([inside, outside], [False, True]), strict=True
        ):
            self.assertAllInRange(folded, 0, LIMIT - 1)
            self.assertAllEqual(ids.from_integers(folded), ids.from_integers(values))
        empty = tf.zeros([0], tf.int64)
        self.assertEqual(ids.folded([empty], [True])[0].shape, [0])
        self.assertEqual(ids.folded([], []), [])
        both = tf.stack([outside, outside])
        (found,) = ids.folded([both], [np.array([[False], [True]])])
        self.assertAllEqual(found[0], [-1, -1, 5])
        self.assertAllEqual(ids.from_integers(found[1]), ids.from_integers(outside))

    def test_small_integers_have_their_hashes_and_others_none_that_has_a_row(self):
        small = tf.constant([0, 5, LIMIT - 1], tf.int64)
        found = ids.from_small_integers(small)
        self.assertAllEqual(found, ids.from_integers(small))
        large = tf.constant([-1, LIMIT, 2**63 - 1, -(2**63)], tf.int64)
        found = ids.with_slot(7, ids.from_small_integers(large))
        self.assertAllLess(found, 0)
        self.assertLen(set(found.numpy().tolist()), 4)
        self.assertTrue(ids.all_small([small, small]))
        self.assertFalse(ids.all_small([small, large[:1]]))
        self.assertFalse(ids.all_small([large[1:2]]))

    def test_no_collision_among_dense_and_strided_integers(self):
        dense = np.arange(200_000, dtype=np.int64)
        values = np.unique(np.concatenate([dense, dense << 20, LIMIT - 1 - dense]))
        hashed = ids.from_integers(values).numpy()
        self.assertLen(np.unique(hashed), len(values))

    def test_low_bits_of_consecutive_integers_spread_evenly(self):
        hashed = ids.from_integers(tf.range(64_000, dtype=tf.int64)).numpy()
        for parts in (2, 7, 64):
            share = np.bincount(hashed % parts) / len(hashed)
            # Six standard deviations of a fair draw.
            limit = 6 * np.sqrt((1 / parts) * (1 - 1 / parts) / len(hashed))
            self.assertAllClose(share, np.full(parts, 1 / parts), atol=limit, rtol=0)

    def test_changing_one_input_bit_changes_about_half_of_the_output_bits(self):
        draw = random.Random(1)
        flips = [
            bin(ids.hash_integer(v) ^ ids.hash_integer(v ^ (1 << bit))).count("1")
            for v in (draw.randrange(LIMIT) for _ in range(200))
            for bit in range(48)
        ]
        self.assertBetween(np.mean(flips), 21, 26)

    def test_integers_outside_48_bits_go_through_splitmix64(self):
        for value in (-1, LIMIT, 2**63 - 1, -(2**63)):
            cut = splitmix64_of(value % 2**64) % LIMIT
            self.assertEqual(ids.hash_integer(value), ids.hash_integer(cut))

    def test_narrow_integers_are_widened(self):
        self.assertAllEqual(
            ids.from_integers(tf.constant([5, 6], tf.int32)),
            ids.from_integers(tf.constant([5, 6], tf.int64)),
        )

    def test_strings_hash_into_48_bits_and_use_the_high_ones(self):
        hashed = ids.from_strings([f"user-{i}" for i in range(1000)]).numpy()
        self.assertLen(set(hashed.tolist()), 1000)
        self.assertTrue(np.all((hashed >= 0) & (hashed < LIMIT)))
        self.assertGreater(hashed.max(), LIMIT // 2)

    def test_slot_and_hash_come_back_from_an_id(self):
        hashed = ids.from_integers([0, 7, LIMIT - 1])
        for slot in (0, 1, 12345, 32767):
            made = ids.with_slot(slot, hashed)
            self.assertTrue(np.all(made >= 0))
            self.assertAllEqual(ids.slot_of(made), [slot] * 3)
            self.assertAllEqual(ids.hash_of(made), hashed)

    def test_same_ids_in_graph_mode(self):
        values = np.array([-5, 0, 1, LIMIT, 2**62], np.int64)
        made = tf.function(ids.from_integers)(values)
        self.assertAllEqual(made, ids.from_integers(values))

    def test_rejects_slot_outside_15_bits(self):
        with pytest.raises(ValueError, match=r"`slot` must be in \[0, 32768\)\. .*=-1"):
            ids.with_slot(-1, ids.from_integers([1]))
        with pytest.raises(ValueError, match=r"Received: slot=32768\. Leave it out"):
            ids.check_slot(32768)

    def test_rejects_hash_outside_48_bits(self):
        with pytest.raises(ValueError, match=r"`hashed` must be in \[0, 2\^48\)"):
            ids.to_integer(LIMIT)
