"""Tests of merging tables and of what is told by slot."""

import numpy as np
import tensorflow as tf

from monolith_tf import testing
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding.lookup import layout
from monolith_tf.embedding.spec import SliceSpec
from monolith_tf.embedding.spec import TableSpec


def _table(name, slot, **options):
    return TableSpec(name=name, slot=slot, **({"dim": 4} | options))


def _names(groups):
    return [[table.name for table in group.tables] for group in groups]


class MergeTablesTest(testing.TestCase):
    def test_tables_of_one_layout_and_update_rule_share_a_group(self):
        fast = optimizer_spec.MonolithAdagradSpec(learning_rate=1.0)
        nesterov = optimizer_spec.MomentumSpec(nesterov=True)
        groups = layout.merge_tables(
            [
                _table("a", 1),
                _table("wide", 2, dim=5),
                _table("b", 3, optimizer=fast, unknown="zeros", max_rows=3),
                _table("adam", 4, optimizer=optimizer_spec.AdamSpec()),
                _table("momentum", 5, optimizer=optimizer_spec.MomentumSpec()),
                _table("nesterov", 6, optimizer=nesterov),
            ]
        )
        self.assertEqual(
            _names(groups), [["a", "b"], ["wide"], ["adam"], ["momentum"], ["nesterov"]]
        )
        self.assertLen({group.name for group in groups}, 5)

    def test_tables_that_are_updated_whole_are_apart_while_they_train(self):
        tables = [_table("a", 1), _table("b", 2, update_rows="all"), _table("c", 3)]
        groups = layout.merge_tables(tables)
        self.assertEqual(_names(groups), [["a", "c"], ["b"]])
        self.assertEqual([group.updates_all_rows for group in groups], [False, True])
        frozen = layout.merge_tables(tables, key=lambda part: ())
        self.assertEqual(_names(frozen), [["a", "b", "c"]])

    def test_slices_of_another_name_make_another_group(self):
        bias, vec = SliceSpec(name="bias", dim=1), SliceSpec(name="vec", dim=4)
        groups = layout.merge_tables(
            [
                _table("a", 1, dim=None, slices=(bias, vec)),
                _table("b", 2, dim=None, slices=(vec, bias)),
                _table("c", 3, dim=None, slices=(bias, vec)),
            ]
        )
        self.assertEqual(_names(groups), [["a", "c"], ["b"]])

    def test_places_slices_and_their_state(self):
        slices = (
            SliceSpec(name="bias", dim=1, optimizer=optimizer_spec.FtrlSpec()),
            SliceSpec(name="plain", dim=2, optimizer=optimizer_spec.SgdSpec()),
            SliceSpec(name="vec", dim=3, optimizer=optimizer_spec.RowwiseAdagradSpec()),
        )
        (group,) = layout.merge_tables([_table("a", 1, dim=None, slices=slices)])
        # FTRL keeps two numbers per weight, rowwise Adagrad one per row.
        self.assertEqual((group.dim, group.state_dim, group.row_bytes), (6, 3, 36))
        self.assertEqual([part.start for part in group.parts], [0, 1, 3])
        self.assertEqual([part.state_start for part in group.parts], [0, 2, 2])

    def test_no_tables_make_no_groups(self):
        self.assertEqual(layout.merge_tables([]), ())

    def test_rejects_a_table_without_a_slot(self):
        with self.assertRaisesRegex(ValueError, "must have a `slot`.*name='a'"):
            layout.merge_tables([_table("a", None)])

    def test_rejects_two_tables_of_one_name(self):
        with self.assertRaisesRegex(ValueError, "differ in name. Received: name='a'"):
            layout.merge_tables([_table("a", 1), _table("a", 2)])

    def test_rejects_two_tables_of_one_slot(self):
        with self.assertRaisesRegex(ValueError, "slot=1 for 'a' and 'b'"):
            layout.merge_tables([_table("a", 1), _table("b", 1)])


class GroupTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        (self.group,) = layout.merge_tables([_table("a", 40), _table("b", 3)])

    def test_shows_the_table_by_the_slot(self):
        ids = tf.constant([(3 << 48) + 5, 40 << 48, (41 << 48) - 1], tf.int64)
        self.assertAllEqual(self.group.table_of(ids), [1, 0, 0])

    def test_ids_of_foreign_slots_stay_in_bounds(self):
        ids = tf.constant([7 << 48, (2**15 - 1) << 48, -1, 0], tf.int64)
        self.assertAllEqual(self.group.table_of(ids), [0, 0, 0, 0])

    def test_equal_values_are_not_gathered(self):
        ids = tf.constant([3 << 48, 40 << 48], tf.int64)
        self.assertEqual(self.group.per_row([0.5, 0.5], ids, tf.float32), 0.5)
        self.assertAllEqual(
            self.group.per_row([0.5, 0.25], ids, tf.float32), [[0.25], [0.5]]
        )


class ShardOfTest(testing.TestCase):
    def test_spreads_ids_that_differ_in_few_bits_evenly(self):
        for stride in (1, 2**7, 2**40, 2**48):
            ids = np.arange(1, 7001, dtype=np.int64) * stride
            counts = np.bincount(layout.shard_of(tf.constant(ids), 7), minlength=7)
            self.assertLen(counts, 7)
            self.assertAllInRange(counts, 900, 1100)

    def test_one_shard_holds_everything(self):
        ids = self.rng.integers(0, 2**63, 50)
        self.assertAllEqual(layout.shard_of(tf.constant(ids), 1), np.zeros(50))
