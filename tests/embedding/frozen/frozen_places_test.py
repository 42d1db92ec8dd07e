"""Rows that are read without a search are those that a search finds."""

import hypothesis
import numpy as np
import tensorflow as tf
from hypothesis import strategies as st

from monolith_tf import ids as ids_lib
from monolith_tf import testing
from monolith_tf.embedding.frozen.store import FrozenStore
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.padded import Padded

_BYTES = {"compressor": "int8", "int8_range": 9.0}
_TABLES = (
    TableSpec(name="user", slot=1, dim=2),
    TableSpec(name="far", slot=2, dim=2),
    TableSpec(name="item", slot=7, dim=2),
    TableSpec(name="text", slot=4, dim=2),
    TableSpec(name="bytes", slot=5, dim=2, **_BYTES),
    TableSpec(name="empty", slot=6, dim=2, **_BYTES),
)
_INTEGERS = ("user", "far", "item", "bytes", "empty")
_RANGES = {"user": 6, "item": 9, "bytes": 4, "empty": 0}
_COLUMNS = (
    *(ColumnSpec(feature=t.name, table=t.name) for t in _TABLES),
    ColumnSpec(feature="mean", table="item", combiner="mean", max_length=3),
    ColumnSpec(feature="first", table="item", combiner="first_n", max_length=4),
    ColumnSpec(feature="list", table="user", combiner="none"),
    ColumnSpec(feature="far_sum", table="far", combiner="sum"),
    ColumnSpec(feature="nothing", table="empty", combiner="max"),
)
_SLOTS = {table.name: table.slot for table in _TABLES}
_OF = {column.feature: column.table for column in _COLUMNS}
_LISTS = ("mean", "first", "list", "far_sum", "nothing")
_BATCH = 3

_values = st.one_of(
    st.integers(0, 11),
    st.sampled_from([-1, -(2**63), 2**31, 2**32 + 1, 2**48 - 1, 2**48, 2**63 - 1]),
)
_lists = st.lists(st.lists(_values, max_size=5), min_size=_BATCH, max_size=_BATCH)


def _ids(feature, values):
    """Feature ids of values, which of the table `text` are hashes already."""
    table = _OF[feature]
    if table in _INTEGERS:
        values = ids_lib.from_integers(values)
    return ids_lib.with_slot(_SLOTS[table], values)


def _padded(lists):
    """Lists in a wide tensor, filled up with what has a row."""
    wide = np.full([_BATCH, 6], 2, np.int64)
    for row, values in zip(wide, lists, strict=True):
        row[: len(values)] = values
    lengths = tf.constant([len(values) for values in lists], tf.int64)
    return Padded(tf.constant(wide), lengths)


def _stores(rows):
    """Makes a store that searches, and one that does not where it need not."""
    chunks = []
    for table, present in rows.items():
        values = tf.constant(sorted(present), tf.int64)
        weights = np.arange(1, 2 * len(present) + 1, dtype="f4").reshape(-1, 2)
        chunks.append((_ids(table, values).numpy(), weights + _SLOTS[table] / 8))
    made = []
    for ranges in ({}, _RANGES):
        store = FrozenStore(_TABLES, _COLUMNS, integers=_INTEGERS, ranges=ranges)
        store.fill([chunk for chunk in chunks if len(chunk[0])])
        made.append(store)
    return made


class PlacesTest(testing.TestCase):
    def assert_alike(self, hashed, found_by_hashing, placed, found):
        expected = hashed.combine(found_by_hashing)
        actual = placed.combine(found)
        self.assertEqual(list(actual), list(expected))
        for feature, slices in expected.items():
            value, other = actual[feature]["vec"], slices["vec"]
            if isinstance(other, tf.RaggedTensor):
                self.assertAllEqual(value.row_splits, other.row_splits)
                value, other = value.values, other.values
            self.assertAllEqual(value, other, feature)
        self.assertAllEqual(
            placed.masks(found)["first"], hashed.masks(found_by_hashing)["first"]
        )

    @hypothesis.given(data=st.data())
    @hypothesis.settings(max_examples=15, deadline=None)
    def test_finds_what_hashing_finds(self, data):
        rows = {
            name: data.draw(st.sets(st.integers(0, _RANGES.get(name, 9) - 1)))
            for name in _SLOTS
            if name != "empty"
        }
        rows["far"] |= {2**48 - 1, 2**31}
        hashed, placed = _stores(rows)
        self.assertLen(placed.groups, 3)
        batches = st.lists(_values, min_size=_BATCH, max_size=_BATCH)
        singles = {
            name: tf.constant(data.draw(batches), tf.int64)
            for name in _SLOTS
            if name != "text"
        }
        singles["text"] = tf.constant([0, 3, 2**48 - 1], tf.int64)
        lists = {name: data.draw(_lists) for name in _LISTS}
        ragged = {
            name: tf.ragged.constant(value, tf.int64, row_splits_dtype=tf.int64)
            for name, value in lists.items()
        }
        padded = {name: _padded(value) for name, value in lists.items()}
        for asked in ({**singles, **ragged}, {**singles, **padded}, padded):
            self.assert_alike(
                hashed, hashed.find_values(asked), placed, placed.find_values(asked)
            )
        ids = {
            name: tf.ragged.map_flat_values(lambda x, name=name: _ids(name, x), value)
            for name, value in {**singles, **ragged}.items()
        }
        self.assert_alike(hashed, hashed.lookup(ids), placed, placed.lookup(ids))

    def test_ids_of_another_table_have_no_row(self):
        for store in _stores({"user": {1}, "item": {1}, "text": {1}, "far": {1}}):
            one = tf.constant([1], tf.int64)
            asked = {"user": _ids("item", one), "item": _ids("item", one)}
            found = store.combine(store.lookup(asked))
            self.assertAllEqual(found["user"]["vec"], [[0, 0]])
            self.assertNotAllEqual(found["item"]["vec"], [[0, 0]])

    def test_rows_beyond_the_range_are_left_out(self):
        _, placed = _stores({"user": {5, 6, 100}})
        found = placed.find_values({"user": tf.constant([5, 6, 100, 7], tf.int64)})
        rows = placed.combine(found)["user"]["vec"]
        self.assertAllEqual(rows != 0, [[True] * 2] + [[False] * 2] * 3)

    def test_refuses_ranges_of_tables_of_other_values(self):
        with self.assertRaisesRegex(
            ValueError,
            r"`ranges` must be of tables in `integers`. Received: ranges="
            r"\{'text': 5\}, integers=\['user'\]",
        ):
            FrozenStore(_TABLES, _COLUMNS, integers=["user"], ranges={"text": 5})
