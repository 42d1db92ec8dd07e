"""Tests of what a row takes: hand-counted, and as a store counts it."""

import subprocess
import sys

import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import testing
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding import row_size
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import SliceSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore

_INDEX = 43  # Bytes of an entry that finds the row.
_ID = 8


class RowSizeTest(testing.TestCase):
    @parameterized.parameters(
        # 16 weights and 16 sums of squares.
        ({"dim": 16}, False, 4 * 32 + _ID + _INDEX),
        # Five weights, two moments of each, two powers.
        (
            {"dim": 5, "optimizer": optimizer_spec.AdamSpec()},
            False,
            4 * 17 + _ID + _INDEX,
        ),
        # Two slices of 1 and 4, with adagrad; a step and a time.
        (
            {
                "slices": (SliceSpec(name="b", dim=1), SliceSpec(name="v", dim=4)),
                "expire_after_days": 3.0,
                "max_rows": 9,
                "when_full": "evict_oldest",
            },
            False,
            4 * 10 + 8 * 2 + _ID + _INDEX,
        ),
        # A step and a period, for what changed since.
        ({"dim": 16}, True, 4 * 32 + 8 * 2 + _ID + _INDEX),
    )
    def test_bytes_of_an_id(self, values, tracks_updates, expected):
        table = TableSpec(name="t", slot=0, **values)
        self.assertEqual(row_size.bytes_per_id([table], tracks_updates), expected)
        store = EmbeddingStore(
            [table],
            [ColumnSpec(feature="t", table="t")],
            capacity=8,
            track_updates=tracks_updates,
        )
        store.lookup({"t": tf.constant([5, 6], tf.int64)}, training=True, step=1)
        (described,) = store.describe()
        self.assertEqual((described.rows, described.bytes), (2, 2 * expected))

    def test_tables_of_one_layout_keep_the_same_stamps(self):
        plain = TableSpec(name="a", dim=4)
        by_step = TableSpec(name="b", dim=4, expire_after_steps=7)
        self.assertEqual(row_size.layout_key(plain), row_size.layout_key(by_step))
        both = row_size.bytes_per_id([plain, by_step], False)
        self.assertEqual(both, row_size.bytes_per_id([plain], False) + 8)
        for other in (
            TableSpec(name="c", dim=5),
            TableSpec(name="c", dim=4, optimizer=optimizer_spec.FtrlSpec()),
            TableSpec(name="c", dim=4, update_rows="all"),
            TableSpec(name="c", dim=4, large_integers="exact"),
        ):
            self.assertNotEqual(row_size.layout_key(plain), row_size.layout_key(other))

    def test_a_limit_in_bytes_is_of_weights_and_state(self):
        """2,000,000 bytes hold 15,625 rows of 128 bytes."""
        table = TableSpec(
            name="t", dim=16, max_bytes=2_000_000, when_full="evict_oldest"
        )
        self.assertEqual(row_size.max_rows(table), 15_625)
        self.assertIsNone(row_size.max_rows(TableSpec(name="t", dim=16)))
        both = TableSpec(name="t", dim=16, max_bytes=2_000_000, max_rows=7)
        self.assertEqual(row_size.max_rows(both), 7)

    def test_needs_no_tensorflow(self):
        program = (
            "import sys; import monolith_tf.embedding.row_size; "
            "sys.exit('tensorflow' in sys.modules)"
        )
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
