"""Tests of telling, saving and restoring only what changed."""

import os

import numpy as np
import tensorflow as tf

from monolith_tf import testing
from monolith_tf.embedding.frozen.store import frozen_store
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.saved import files as checkpoint_files
from monolith_tf.embedding.saved import sealed
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore

_TABLES = (
    TableSpec(name="a", slot=1, dim=2, expire_after_steps=10, admit_after=2),
    TableSpec(name="b", slot=2, dim=3),
)
_COLUMNS = tuple(ColumnSpec(feature=t.name, table=t.name) for t in _TABLES)


def _store(num_shards=1, tables=_TABLES, **options):
    return EmbeddingStore(
        tables,
        [ColumnSpec(feature=t.name, table=t.name) for t in tables],
        placement=Placement(num_shards=num_shards),
        capacity=256,
        **({"track_updates": True} | options),
    )


def _ids(table, values):
    return tf.constant(values, tf.int64) + (table.slot << 48)


def _train(store, step, values=None):
    rng = np.random.default_rng(step)
    values = rng.integers(0, 60, 12) if values is None else values
    ids = {t.name: _ids(t, values) for t in store.tables}
    pulled = store.lookup(ids, training=True, step=step)
    gradients = {
        name: tf.constant(rng.normal(size=rows.shape).astype(np.float32))
        for name, rows in pulled.rows.items()
    }
    store.apply_gradients(pulled, gradients, step)


def _read(store):
    embeddings = {}
    for table in _TABLES:
        pulled = store.lookup({table.name: _ids(table, range(60))}, training=False)
        embeddings[table.name] = store.combine(pulled)[table.name]["vec"]
    return embeddings


class DeltaTest(testing.TestCase):
    def path(self, name):
        return os.path.join(self.get_temp_dir(), self._testMethodName, name)

    def assert_same(self, store, other):
        for name, value in _read(store).items():
            self.assertAllEqual(value, _read(other)[name])

    def test_a_chain_restores_what_a_full_checkpoint_would(self):
        store = _store(num_shards=2)
        chain = []
        since_step = None
        for step in range(24):
            _train(store, step)
            store.maintain(step + 1)
            if step + 1 == 15:
                at_15 = _read(store)
            if step + 1 in (6, 15, 18, 24):
                chain.append(self.path(str(step + 1)))
                store.save(chain[-1], step=step + 1, since_step=since_step)
                since_step = step + 1
        self.assertGreater(store.counters()["expired"][0], 0)
        other = _store(num_shards=3)
        report = other.restore(chain[0], deltas=chain[1:])
        self.assertEqual(report.step, 24)
        self.assert_same(other, store)
        for name, value in store.counters().items():
            self.assertAllEqual(other.counters()[name], value, msg=name)
        frozen = frozen_store(_TABLES, _COLUMNS, chain[0], deltas=chain[1:])
        self.assert_same(frozen, store)
        for step in range(24, 27):
            _train(store, step)
            _train(other, step)
        self.assert_same(other, store)
        # Part of the chain is the store as it was then.
        other.restore(chain[0], deltas=chain[1:2])
        for name, value in _read(other).items():
            self.assertAllEqual(value, at_15[name])

    def test_equal_ids_of_tables_of_64_bits_are_not_mixed_up(self):
        tables = [
            TableSpec(name=name, slot=slot, dim=2, large_integers="exact")
            for name, slot in (("a", 1), ("b", 2))
        ]

        def train(store, step, **values):
            ids = {name: tf.constant(found, tf.int64) for name, found in values.items()}
            pulled = store.lookup(ids, training=True, step=step)
            ones = {name: tf.ones_like(rows) for name, rows in pulled.rows.items()}
            store.apply_gradients(pulled, ones, step)

        def read(store):
            ids = {t.name: tf.constant([7, -7, 8], tf.int64) for t in tables}
            found = store.combine(store.lookup(ids, training=False))
            return np.stack([found[t.name]["vec"] for t in tables])

        store, other = _store(tables=tables), _store(2, tables=tables)
        train(store, 0, a=[7, -7], b=[7, -7])
        store.save(self.path("full"), step=1)
        train(store, 1, a=[7, 8])
        store.save(self.path("delta"), step=2, since_step=1)
        other.restore(self.path("full"), deltas=[self.path("delta")])
        self.assertAllEqual(read(other), read(store))
        self.assertAllEqual(np.any(read(store), axis=2), [[1, 1, 1], [1, 1, 0]])

    def test_a_delta_holds_only_what_changed(self):
        store = _store(tables=_TABLES[1:])
        _train(store, 0, values=range(50))
        store.save(self.path("full"), step=1)
        _train(store, 1, values=[3, 4])
        manifest = store.save(self.path("delta"), step=2, since_step=1)
        (group,) = manifest["groups"]
        self.assertEqual(group["rows_files"][0]["rows"], 2)

    def test_shows_what_was_touched_and_removed(self):
        store = _store(num_shards=2)
        _train(store, 0, values=[1, 1, 2, 2, 3, 3])
        _train(store, 5, values=[3, 4])
        touched = np.concatenate([chunk.ids for _, chunk in store.touched(5)])
        # One occurrence of 4 does not earn it a row in `a`.
        expected = [(1 << 48) + 3, (2 << 48) + 3, (2 << 48) + 4]
        self.assertAllEqual(np.sort(touched), expected)
        self.assertEmpty(store.removed(0))
        store.maintain(10)
        gone = [(1 << 48) + 1, (1 << 48) + 2]
        self.assertAllEqual(np.sort(store.removed(0)), gone)
        self.assertEmpty(store.removed(11))
        store.forget_removed(11)
        with self.assertRaisesRegex(ValueError, "`since_step` must be at least 11"):
            store.removed(10)

    def test_changes_are_reported_without_optimizer_state(self):
        store = _store(tables=_TABLES[1:])
        _train(store, 0, values=[1])
        ((group, chunk),) = store.touched(0)
        self.assertEqual(group.tables, _TABLES[1:])
        self.assertAllEqual(chunk.weights, _read_one(store, 1))
        self.assertEqual(chunk.state.shape, (1, 0))

    def test_removals_before_a_restore_are_not_known(self):
        store = _store()
        _train(store, 0)
        store.save(self.path("full"), step=7)
        store.restore(self.path("full"))
        store.save(self.path("delta"), step=9, since_step=7)
        with self.assertRaisesRegex(ValueError, "`since_step` must be at least 7"):
            store.save(self.path("other"), step=9, since_step=6)

    def test_needs_updates_to_be_tracked(self):
        store = _store(track_updates=False)
        with self.assertRaisesRegex(ValueError, "`track_updates` must be True"):
            store.save(self.path("delta"), since_step=1)

    def test_tracking_needs_the_step(self):
        store = _store(tables=_TABLES[1:])
        with self.assertRaisesRegex(ValueError, "`step` must be given"):
            store.lookup({"b": _ids(_TABLES[1], [1])}, training=True)
        with self.assertRaisesRegex(ValueError, "`step` must be given"):
            store.maintain()

    def test_a_chain_starts_with_a_full_checkpoint_and_has_no_gap(self):
        store = _store()
        full, late, later = self.path("full"), self.path("late"), self.path("later")
        store.save(full, step=5)
        store.save(late, step=8, since_step=5)
        store.save(later, step=9, since_step=8)
        store.restore(full, deltas=[late, later])
        with self.assertRaisesRegex(ValueError, "must hold a full checkpoint"):
            store.restore(late)
        with self.assertRaisesRegex(ValueError, "since_step=8, after .*step=5"):
            store.restore(full, deltas=[later])

    def test_a_delta_of_another_run_is_refused(self):
        one, other = _store(), _store()
        for store, name in ((one, "one"), (other, "other")):
            _train(store, 0)
            store.save(self.path(name), step=1)
            _train(store, 1, values=[1, 1] if store is one else [2, 2])
        delta = other.save(self.path("delta"), step=2, since_step=1)
        first = checkpoint_files.read_manifest(self.path("one"))
        before = _read(one)
        message = f"delta', which follows .*{delta['follows'][0]}, .*{first['id']}"
        with self.assertRaisesRegex(ValueError, message):
            one.restore(self.path("one"), deltas=[self.path("delta")])
        with self.assertRaisesRegex(ValueError, message):
            frozen_store(
                _TABLES, _COLUMNS, self.path("one"), deltas=[self.path("delta")]
            )
        self.assertAllEqual(_read(one)["b"], before["b"])
        one.restore(self.path("other"), deltas=[self.path("delta")])
        self.assert_same(one, other)

    def test_a_run_that_was_restored_goes_on_with_its_chain(self):
        store, other, last = _store(), _store(2), _store()
        _train(store, 0)
        store.save(self.path("full"), step=1)
        _train(store, 1)
        store.save(self.path("first"), step=2, since_step=1)
        other.restore(self.path("full"), deltas=[self.path("first")])
        _train(other, 2)
        other.save(self.path("second"), step=3, since_step=2)
        chain = [self.path("first"), self.path("second")]
        last.restore(self.path("full"), deltas=chain)
        self.assert_same(last, other)
        # What the first run did after it was left is not part of that.
        _train(store, 2)
        store.save(self.path("late"), step=3, since_step=2)
        _train(other, 3)
        other.save(self.path("third"), step=4, since_step=3)
        with self.assertRaisesRegex(ValueError, "must be of the run"):
            last.restore(
                self.path("full"),
                deltas=[self.path("first"), self.path("late"), self.path("third")],
            )

    def test_a_delta_may_follow_any_later_checkpoint_of_its_run(self):
        store, other = _store(), _store()
        for step in range(3):
            _train(store, step)
            store.save(self.path(str(step + 1)), step=step + 1)
        _train(store, 3)
        store.save(self.path("delta"), step=4, since_step=2)
        for full in ("2", "3"):
            other.restore(self.path(full), deltas=[self.path("delta")])
            self.assert_same(other, store)

    def test_checkpoints_without_ids_restore_as_before(self):
        store, other = _store(), _store()
        _train(store, 0)
        store.save(self.path("full"), step=1)
        _without_id(self.path("full"))
        other.restore(self.path("full"))
        _train(other, 1)
        other.save(self.path("delta"), step=2, since_step=1)
        store.restore(self.path("full"), deltas=[self.path("delta")])
        self.assert_same(store, other)
        _without_id(self.path("delta"))
        store.save(self.path("new"), step=1)
        store.restore(self.path("new"), deltas=[self.path("delta")])
        self.assert_same(store, other)


def _without_id(directory):
    """Makes a manifest what it was before checkpoints had ids."""
    path = os.path.join(directory, checkpoint_files.MANIFEST)
    manifest, _ = sealed.unseal(path)
    del manifest["id"], manifest["follows"]
    os.remove(path)
    checkpoint_files.write_manifest(directory, manifest)


def _read_one(store, value):
    pulled = store.lookup({"b": _ids(_TABLES[1], [value])}, training=False)
    return store.combine(pulled)["b"]["vec"]
