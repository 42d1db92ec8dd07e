from unittest import mock

import numpy as np
import tensorflow as tf

from monolith_tf import testing
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding.initializer_spec import NormalSpec
from monolith_tf.embedding.keras.rows import KeyedRows
from monolith_tf.embedding.shard import row_blocks
from monolith_tf.embedding.spec import SliceSpec

_LOWEST, _HIGHEST = -(2**63), 2**63 - 1


def _rows(capacity=1000, dim=2, name="t", seed=3, **parts):
    optimizer = optimizer_spec.SgdSpec(learning_rate=1.0)
    spec = SliceSpec(**{"name": "vec", "dim": dim, "optimizer": optimizer} | parts)
    return KeyedRows(name, spec, seed=seed, capacity=capacity)


def _keys(*values):
    return tf.constant(values, tf.int64)


class KeyedRowsTest(testing.TestCase):
    def test_keys_of_all_64_bits_never_share_a_row(self):
        # Neighbours in every bit, the sign among them, and the ends of the range.
        start = self.rng.integers(_LOWEST, _HIGHEST, size=20)
        bits = np.left_shift(np.int64(1), np.arange(64))
        keys = np.concatenate(
            [start, *(start ^ bit for bit in bits), [_LOWEST, _HIGHEST, 0, -1]]
        )
        keys = np.unique(keys)
        self.assertLen(keys, 20 * 65 + 4)
        rows = _rows(capacity=2000, dim=1)
        rows.lookup(tf.constant(keys), insert=True)
        self.assertEqual(rows.num_rows(), len(keys))
        values = np.arange(len(keys), dtype=np.float32)[:, np.newaxis]
        rows.assign(keys, values)
        order = self.rng.permutation(len(keys))
        self.assertAllEqual(rows.read(tf.constant(keys[order])), values[order])

    def test_updates_reach_the_rows_of_their_keys(self):
        keys = np.array([5, 5 - 2**63, -1, _HIGHEST, _LOWEST, 0])
        rows = _rows()
        found = rows.lookup(tf.constant(keys), insert=True)
        before = found.weights
        gradients = self.rng.normal(size=[6, 2]).astype(np.float32)
        rows.apply_gradients(found, tf.constant(gradients), tf.constant(0, tf.int64))
        self.assertAllClose(rows.read(tf.constant(keys)), before - gradients)
        found = rows.lookup(tf.constant(keys[3:4]), insert=True)
        before = found.weights
        rows.apply_gradients(
            found, tf.constant(gradients[:1]), tf.constant(1, tf.int64)
        )
        self.assertAllClose(rows.read(tf.constant(keys[3:4])), before - gradients[:1])

    def test_unknown_keys_read_zeros_and_get_no_row(self):
        rows = _rows(initializer=NormalSpec())
        self.assertAllEqual(rows.read(_keys(7, -7, 7)), np.zeros([3, 2]))
        rows.lookup(_keys(7, -7), insert=False)
        self.assertEqual(rows.num_rows(), 0)

    def test_initial_values_depend_on_seed_name_and_key_only(self):
        keys = np.array([3, 3 - 2**63, 9, -9])

        def start(order, **changes):
            rows = _rows(**{"dim": 8} | changes)
            for key in keys[order]:
                rows.lookup(_keys(key), insert=True)
            return rows.read(tf.constant(keys)).numpy()

        expected = start([0, 1, 2, 3])
        self.assertAllEqual(start([2, 3, 1, 0]), expected)
        self.assertNotAllClose(start([0, 1, 2, 3], seed=4), expected)
        self.assertNotAllClose(start([0, 1, 2, 3], name="u"), expected)
        self.assertLen(np.unique(expected), expected.size)

    def test_an_empty_batch_is_no_trouble(self):
        rows = _rows()
        found = rows.lookup(_keys(), insert=True)
        self.assertEqual(found.weights.shape, [0, 2])
        rows.apply_gradients(found, tf.zeros([0, 2]), tf.constant(0, tf.int64))

    def test_exported_rows_fill_another_table(self):
        optimizer = optimizer_spec.MonolithAdagradSpec()
        rows, other = _rows(optimizer=optimizer), _rows(optimizer=optimizer, seed=9)
        keys = _keys(1, -1, 2**50, -(2**50))
        found = rows.lookup(keys, insert=True)
        rows.apply_gradients(found, tf.ones([4, 2]), tf.constant(0, tf.int64))
        for chunk in rows.chunks():
            other.load(chunk)
        self.assertAllEqual(other.read(keys), rows.read(keys))
        # The accumulators came along: 0.1 + 1 + 1, and not 0.1 + 1, is under the root.
        found = other.lookup(keys, insert=False)
        before = found.weights
        other.apply_gradients(found, tf.ones([4, 2]), tf.constant(1, tf.int64))
        self.assertAllClose(before - other.read(keys), np.full([4, 2], 0.05 / 2.1**0.5))
        other.clear()
        self.assertEqual(other.num_rows(), 0)
        self.assertAllEqual(other.read(keys), np.zeros([4, 2]))

    def test_assigning_starts_optimizer_state_anew_and_makes_rows(self):
        rows = _rows(optimizer=optimizer_spec.MonolithAdagradSpec())
        found = rows.lookup(_keys(1, -1), insert=True)
        rows.apply_gradients(found, tf.ones([2, 2]), tf.constant(0, tf.int64))
        rows.assign(np.array([1, 4]), np.array([[1.0, 2.0], [3.0, 4.0]], np.float32))
        self.assertEqual(rows.num_rows(), 3)
        found = rows.lookup(_keys(1, 4), insert=False)
        before = found.weights
        self.assertAllEqual(before, [[1.0, 2.0], [3.0, 4.0]])
        rows.apply_gradients(found, tf.ones([2, 2]), tf.constant(1, tf.int64))
        moved = before - rows.read(_keys(1, 4))
        self.assertAllClose(moved, np.full([2, 2], 0.05 / 1.1**0.5))

    def test_loading_makes_room(self):
        rows, large = _rows(capacity=4), _rows(capacity=100)
        keys = np.arange(-30, 30)
        large.assign(keys, np.repeat(keys, 2).reshape(-1, 2).astype(np.float32))
        for chunk in large.chunks():
            rows.load(chunk)
        self.assertAllEqual(rows.read(tf.constant(keys)), large.read(tf.constant(keys)))

    def test_room_is_made_when_it_is_needed(self):
        self.enter_context(mock.patch.object(row_blocks, "_MOVED_BYTES", 1 << 10))
        rows = _rows(capacity=3, initializer=NormalSpec())
        insert = tf.function(
            lambda keys: rows.lookup(keys, insert=True).weights,
            input_signature=[tf.TensorSpec([None], tf.int64)],
        )
        keys = self.rng.integers(_LOWEST, _HIGHEST, size=2000)
        keys[:500] = np.arange(500)
        large = _rows(capacity=4000, initializer=NormalSpec())
        expected = large.lookup(tf.constant(keys), insert=True).weights
        for end in (3, 4, 50, 51, 700, 2000):
            self.assertAllEqual(insert(tf.constant(keys[:end])), expected[:end])
        self.assertEqual(rows.num_rows(), 2000)
        self.assertAllEqual(rows.read(tf.constant(keys)), expected)
