"""Tests of read-only stores: equal to the live one, and alive without this package."""

import os

import numpy as np
import tensorflow as tf

from monolith_tf import ids as ids_lib
from monolith_tf import testing
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding.frozen.store import FrozenStore
from monolith_tf.embedding.frozen.store import frozen_store
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import SliceSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.padded import Padded

_COLUMNS = (
    ColumnSpec(feature="user", table="user"),
    ColumnSpec(feature="history", table="item", combiner="first_n", max_length=2),
    ColumnSpec(feature="item", table="item"),
)
_BATCH = 6


def _tables(**compressor):
    return (
        TableSpec(name="user", slot=1, dim=3),
        TableSpec(
            name="item",
            slot=2,
            slices=(
                SliceSpec(name="bias", dim=1),
                SliceSpec(
                    name="vec",
                    dim=3,
                    optimizer=optimizer_spec.AdamSpec(),
                    **compressor,
                ),
            ),
        ),
    )


def _store(num_shards=2, **compressor):
    placement = Placement(num_shards=num_shards)
    store = EmbeddingStore(
        _tables(**compressor), _COLUMNS, placement=placement, capacity=64
    )
    store.lookup(_ids(), training=True)
    return store


def _ids(offset=0):
    values = tf.range(_BATCH, dtype=tf.int64) + offset
    history = tf.RaggedTensor.from_row_lengths(values, [3, 0, 1, 2, 0, 0])
    return {
        "user": values + (1 << 48),
        "item": values + (2 << 48),
        "history": history + (2 << 48),
    }


class Serving(tf.Module):
    """What an export looks like."""

    def __init__(self, frozen):
        super().__init__()
        self.frozen = frozen

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([None], tf.int64),
        ]
    )
    def serve(self, user, history, row_splits):
        lists = tf.RaggedTensor.from_row_splits(history, row_splits)
        pulled = self.frozen.lookup({"user": user, "history": lists})
        embeddings = self.frozen.combine(pulled)
        return {
            "user": embeddings["user"]["vec"],
            "history": embeddings["history"]["vec"],
            "mask": self.frozen.masks(pulled)["history"],
        }


class FrozenStoreTest(testing.TestCase):
    def assert_answers_alike(self, frozen, store):
        for ids in (_ids(), _ids(offset=3), {"user": _ids()["user"]}):
            expected = store.lookup(ids, training=False)
            actual = frozen.lookup(ids, training=False)
            masks = frozen.masks(actual)
            self.assertEqual(set(masks), set(store.masks(expected)))
            for feature, mask in store.masks(expected).items():
                self.assertAllEqual(masks[feature], mask)
            actual, expected = frozen.combine(actual), store.combine(expected)
            for feature, slices in expected.items():
                for name, value in slices.items():
                    self.assertAllEqual(actual[feature][name], value)

    def test_answers_as_the_store_does(self):
        store = _store()
        self.assert_answers_alike(store.freeze(), store)

    def test_answers_as_the_store_did_when_it_was_saved(self):
        store = _store()
        directory = os.path.join(self.get_temp_dir(), self._testMethodName)
        store.save(directory)
        frozen = frozen_store(_tables(), _COLUMNS, directory)
        self.assert_answers_alike(frozen, store)
        # Training goes on without it.
        pulled = store.lookup(_ids(), training=True)
        ones = {name: tf.ones_like(rows) for name, rows in pulled.rows.items()}
        store.apply_gradients(pulled, ones, 0)
        unchanged = frozen.combine(frozen.lookup(_ids()))["user"]["vec"]
        changed = store.combine(store.lookup(_ids(), training=False))["user"]["vec"]
        self.assertNotAllClose(unchanged, changed)

    def test_reads_a_renamed_table(self):
        store = _store()
        directory = os.path.join(self.get_temp_dir(), self._testMethodName)
        store.save(directory)
        member = TableSpec(name="member", slot=5, dim=3)
        column = ColumnSpec(feature="member", table="member")
        frozen = frozen_store([member], [column], directory, aliases={"user": "member"})
        ids = tf.range(_BATCH, dtype=tf.int64) + (5 << 48)
        self.assertAllEqual(
            frozen.combine(frozen.lookup({"member": ids}))["member"]["vec"],
            store.combine(store.lookup(_ids(), training=False))["user"]["vec"],
        )

    def test_holds_rows_in_use_without_optimizer_state(self):
        frozen = _store().freeze()
        shapes = sorted(v.read_value().shape.as_list() for v in frozen.variables)
        # A row of zeros, then one per id.
        self.assertEqual(shapes, [[7, 1], [7, 3], [7, 3]])

    def test_half_floats_round_once(self):
        store = _store(compressor="fp16")
        frozen = store.freeze()
        live = store.combine(store.lookup(_ids(), training=False))["item"]
        served = frozen.combine(frozen.lookup(_ids()))["item"]
        self.assertAllEqual(served["vec"], live["vec"].numpy().astype(np.float16))
        self.assertAllEqual(served["bias"], live["bias"])
        self.assertIn(tf.int16, [variable.dtype for variable in frozen.variables])

    def test_bytes_are_off_by_half_a_step_at_most(self):
        store = _store(compressor="int8", int8_range=0.04)
        frozen = store.freeze()
        live = store.combine(store.lookup(_ids(), training=False))["item"]["vec"]
        served = frozen.combine(frozen.lookup(_ids()))["item"]["vec"]
        inside = np.clip(live, -0.04, 0.04)  # The range is cut off.
        self.assertNotAllEqual(inside, live)
        self.assertAllClose(served, inside, rtol=0, atol=0.5 * 0.04 / 127 + 1e-8)
        self.assertIn(tf.int8, [variable.dtype for variable in frozen.variables])

    def test_tables_stored_differently_are_kept_apart(self):
        tables = [
            TableSpec(name="a", slot=1, dim=3),
            TableSpec(name="b", slot=2, dim=3, compressor="fp16"),
            TableSpec(name="c", slot=3, dim=3, optimizer=optimizer_spec.AdamSpec()),
        ]
        columns = [ColumnSpec(feature=t.name, table=t.name) for t in tables]
        store = EmbeddingStore(tables, columns, capacity=64)
        ids = {t.name: tf.constant([7, 8], tf.int64) + (t.slot << 48) for t in tables}
        pulled = store.lookup(ids, training=True)
        live = store.combine(pulled)
        self.assertLen(pulled.rows, 2)
        frozen = store.freeze()
        self.assertLen(frozen.groups, 2)
        served = frozen.combine(frozen.lookup(ids))
        self.assertAllEqual(served["a"]["vec"], live["a"]["vec"])
        self.assertAllEqual(served["c"]["vec"], live["c"]["vec"])
        self.assertAllClose(served["b"]["vec"], live["b"]["vec"], rtol=1e-3)

    def test_a_session_loader_answers_from_the_saved_model(self):
        store = _store()
        module = Serving(store.freeze())
        directory = os.path.join(self.get_temp_dir(), self._testMethodName)
        tf.saved_model.save(module, directory, signatures=module.serve)
        ids = _ids(offset=2)
        expected = store.combine(store.lookup(ids, training=False))
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            graph = tf.compat.v1.saved_model.load(session, ["serve"], directory)
            signature = graph.signature_def["serving_default"]
            feeds = {
                "user": ids["user"].numpy(),
                "history": ids["history"].values.numpy(),
                "row_splits": ids["history"].row_splits.numpy(),
            }
            outputs = session.run(
                {name: info.name for name, info in signature.outputs.items()},
                {signature.inputs[name].name: value for name, value in feeds.items()},
            )
        self.assertAllEqual(outputs["user"], expected["user"]["vec"])
        self.assertAllEqual(outputs["history"], expected["history"]["vec"])
        self.assertAllEqual(outputs["mask"].sum(axis=1), [2, 0, 1, 2, 0, 0])

    def test_tables_of_integers_are_asked_by_integers_or_by_ids(self):
        tables = [
            TableSpec(name="number", slot=1, dim=2, large_integers="hash"),
            TableSpec(name="text", slot=2, dim=2, compressor="fp16"),
        ]
        columns = [
            ColumnSpec(feature="one", table="number"),
            ColumnSpec(feature="list", table="number", combiner="mean", max_length=2),
            ColumnSpec(
                feature="first", table="number", combiner="first_n", max_length=3
            ),
            ColumnSpec(feature="text", table="text"),
        ]
        integers = tf.constant([3, -7, 2**60, 4], tf.int64)  # No row for 4.
        hashes = tf.constant([11, 12, 13, 14], tf.int64)
        numbers = ids_lib.with_slot(1, ids_lib.from_integers(integers))
        texts = ids_lib.with_slot(2, hashes)
        weights = np.arange(6, dtype="f4").reshape(3, 2) + 1
        frozen = FrozenStore(tables, columns, integers=["number"])
        frozen.fill([(numbers[:3].numpy(), weights), (texts[:3].numpy(), -weights)])
        lists = tf.gather(integers, [[0, 1, 2], [3, 0, 1], [2, 2, 2]])
        padded = Padded(lists, tf.constant([3, 1, 0], tf.int64))
        asked = {"one": integers, "list": padded, "first": padded, "text": hashes}
        found = frozen.find_values(asked)
        zero = [[0, 0]]
        expected = {
            "one": [*weights, *zero],
            "list": [weights[:2].mean(axis=0), *zero, *zero],
            "first": [weights, np.zeros([3, 2]), np.zeros([3, 2])],
            "text": [*-weights, *zero],
        }
        for feature, slices in frozen.combine(found).items():
            self.assertAllEqual(slices["vec"], expected[feature])
        self.assertAllEqual(frozen.masks(found)["first"], padded.mask())
        found = frozen.lookup({"one": numbers, "text": texts})
        for feature, slices in frozen.combine(found).items():
            self.assertAllEqual(slices["vec"], expected[feature])

    def test_refuses_to_train(self):
        with self.assertRaisesRegex(ValueError, "`training` must be False"):
            _store().freeze().lookup(_ids(), training=True)
