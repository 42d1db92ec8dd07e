"""Tests of how much room a growth of the rows makes."""

import tensorflow as tf

from monolith_tf import testing
from monolith_tf.embedding.shard import row_blocks


class RowBlocksTest(testing.TestCase):
    def _grown(self, rows, wanted):
        return int(rows.grow(tf.constant(wanted), {"a": rows.capacity.read_value()}))

    def test_a_small_first_block_grows_fourfold_and_later_growths_double(self):
        rows = row_blocks.RowBlocks({"a": row_blocks.Column(tf.float32, 2)}, 8)
        self.assertEqual(self._grown(rows, 9), 32)
        rows._most_moved.assign(16)  # From here on, blocks are added.
        self.assertEqual(self._grown(rows, 33), 64)
        self.assertEqual(self._grown(rows, 65), 128)

    def test_a_growth_keeps_to_its_limits(self):
        rows = row_blocks.RowBlocks({"a": row_blocks.Column(tf.float32)}, 8)
        rows.most_added.assign(10)
        self.assertEqual(self._grown(rows, 9), 18)
        self.assertEqual(self._grown(rows, 100), 100)
        rows.max_rows.assign(105)
        self.assertEqual(self._grown(rows, 101), 105)
