"""What a store held at a mark, with what changed since, is what it holds now."""

import os
import threading
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import testing
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.saved import files as checkpoint_files
from monolith_tf.embedding.shard import row_blocks
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore

_SGD = optimizer_spec.SgdSpec(learning_rate=0.5)
# Two groups: the first has no optimizer state.
_TABLES = (
    TableSpec(name="plain", slot=1, dim=2, optimizer=_SGD),
    TableSpec(name="old", slot=2, dim=2, optimizer=_SGD, expire_after_steps=4),
    TableSpec(name="rare", slot=3, dim=3, admit_after=3),
    TableSpec(name="full", slot=4, dim=3, max_rows=20, when_full="evict_oldest"),
    TableSpec(name="late", slot=5, dim=3, unknown="zeros"),
)


def _store(num_shards=1, **options):
    return EmbeddingStore(
        _TABLES,
        [ColumnSpec(feature=t.name, table=t.name) for t in _TABLES],
        placement=Placement(num_shards=num_shards),
        **({"track_updates": True, "capacity": 8} | options),
    )


def _rows(chunks):
    """Id -> bytes of all that is kept of its row."""
    return {
        int(id_): (weights.tobytes(), state.tobytes(), *stamps)
        for _, chunk in chunks
        for id_, weights, state, *stamps in zip(
            chunk.ids, chunk.weights, chunk.state, *chunk.stamps.values(), strict=True
        )
    }


def _counts(store):
    found = {}
    for shards in store._shards.values():
        for shard in shards:
            if shard.admission is not None:
                ids, counts = shard.admission.exact.export()
                found |= dict(zip(ids.tolist(), counts.tolist(), strict=True))
    return found


def _train(store, step, values):
    rng = np.random.default_rng(step)
    ids = {t.name: tf.constant(values, tf.int64) + (t.slot << 48) for t in _TABLES}
    pulled = store.lookup(ids, training=True, step=step)
    gradients = {
        name: tf.constant(rng.normal(size=rows.shape).astype(np.float32))
        for name, rows in pulled.rows.items()
    }
    store.apply_gradients(pulled, gradients, step)
    return np.concatenate([i.numpy() for i in ids.values()]).tolist()


class _History:
    """A store, all its rows at some marks, and the ids that were touched since."""

    def __init__(self, store, seed):
        self.store = store
        self.rng = np.random.default_rng(seed)
        self.step = 0
        self.at = []  # Mark, rows, touched ids.
        self.start = store.mark()

    def now(self):
        return _rows(self.store.changed(self.start, with_state=True))

    def train(self):
        first, size = self.rng.integers(0, 80), self.rng.integers(3, 40)
        values = first + self.rng.integers(0, size, size)
        touched = _train(self.store, self.step, values)
        for _, _, known in self.at:
            known.update(touched)
        self.step += 1

    def maintain(self):
        self.store.maintain(self.step)

    def mark(self):
        self.at.append((self.store.mark(), self.now(), set()))
        if len(self.at) > 4:
            self.at.pop(self.rng.integers(0, 4))[0].release()

    def check(self):
        now = self.now()
        for mark, rows, touched in self.at:
            changed = _rows(self.store.changed(mark, with_state=True))
            gone = set(self.store.removed(mark).tolist())
            kept = {id_: row for id_, row in rows.items() if id_ not in gone}
            assert kept | changed == now
            assert set(changed) == touched & set(now)
            assert set(rows) - set(now) <= gone


class MarksTest(testing.TestCase):
    def path(self, name):
        return os.path.join(self.get_temp_dir(), self._testMethodName, name)

    @parameterized.parameters(("exact", 1), ("hogwild", 2))
    @mock.patch.object(row_blocks, "_MOVED_BYTES", 1 << 11)
    def test_any_history(self, mode, num_shards):
        history = _History(_store(num_shards, mode=mode), seed=num_shards)
        for _ in range(30):
            moves = [history.train, history.train, history.maintain, history.mark]
            moves[history.rng.integers(0, 4)]()
            if history.rng.random() < 0.3:
                history.check()
        history.check()
        counters = history.store.table_counters()
        self.assertGreater(counters["old"]["expired"], 0)
        self.assertGreater(counters["full"]["evicted"], 0)

    def test_saved_changes_restore_all_but_nothing_else(self):
        history = _History(_store(2), seed=3)
        for _ in range(6):
            history.train()
        mark = history.store.mark()
        chain = [self.path("full")]
        history.store.save(chain[0], step=history.step)
        for number in range(3):
            for _ in range(4):
                history.train()
            history.maintain()
            next_mark = history.store.mark()
            chain.append(self.path(str(number)))
            manifest = history.store.save(chain[-1], step=history.step, since=mark)
            rows = sum(f["rows"] for g in manifest["groups"] for f in g["rows_files"])
            self.assertLess(rows, len(history.now()))
            mark = next_mark
        other = _store(3)
        before = other.mark()
        other.restore(chain[0], deltas=chain[1:])
        self.assertEqual(_rows(other.changed(before, with_state=True)), history.now())
        self.assertEqual(_counts(other), _counts(history.store))
        self.assertNotEmpty(_counts(other))
        for name, value in history.store.counters().items():
            self.assertAllEqual(other.counters()[name], value, msg=name)

    def test_counts_of_what_was_not_seen_since_are_not_written_again(self):
        store = _store()
        _train(store, 0, [1, 1, 2, 3])
        mark = store.mark()
        store.save(self.path("full"), step=1)
        _train(store, 1, [1, 2])  # The first is admitted.
        store.save(self.path("delta"), step=2, since=mark)
        store.save(self.path("all"), step=2, since=mark, with_all_counts=True)
        slot = 3 << 48
        for name, wanted in (("delta", {slot + 2: 2}), ("all", _counts(store))):
            other = _store()
            # Alone, a delta holds just its own.
            manifest = checkpoint_files.read_manifest(self.path(name))
            found = {}
            for group in manifest["groups"]:
                for ids, counts in checkpoint_files.read_counts(self.path(name), group):
                    found |= dict(zip(ids.tolist(), counts.tolist(), strict=True))
            self.assertEqual(found, wanted)
            other.restore(self.path("full"), deltas=[self.path(name)])
            self.assertEqual(_counts(other), {slot + 2: 2, slot + 3: 1})

    def test_a_restore_changes_all(self):
        store = _store(2)
        _train(store, 0, range(9))
        store.save(self.path("full"), step=1)
        _train(store, 1, range(5, 14))
        mark, later = store.mark(), store.mark()
        store.restore(self.path("full"))
        restored = {int(i) for c in store.rows() for i in c.ids}
        for each in (mark, later):
            changed = _rows(store.changed(each, with_state=True))
            self.assertEqual(set(changed), restored)
            gone = set(store.removed(each).tolist())
            self.assertContainsSubset({(1 << 48) + v for v in range(14)}, gone)
        # On top of any base from before, also with counts that are gone.
        store.save(self.path("delta"), step=1, since=mark)
        other = _store()
        other.restore(self.path("full"), deltas=[self.path("delta")])
        self.assertEqual(_counts(other), _counts(store))

    def test_removals_are_kept_for_the_oldest_mark_in_use(self):
        store = _store()
        first = store.mark()
        for step in range(8):
            _train(store, step, [step])
            store.maintain(step + 1)
        gone = store.removed(first).tolist()
        self.assertIn((2 << 48) + 0, gone)
        second = store.mark()
        self.assertEqual(store.removed(first).tolist(), gone)
        self.assertEmpty(store.removed(second))
        first.release()
        with self.assertRaisesRegex(ValueError, "which was released"):
            store.removed(first)
        third = store.mark()
        parts = [s.removals._parts for g in store._shards.values() for s in g]
        self.assertEqual(parts, [[], []])
        # A mark that nothing refers to is not in use either.
        store.maintain(20)
        self.assertNotEmpty(store.removed(second))
        del second, third
        store.mark()
        parts = [s.removals._parts for g in store._shards.values() for s in g]
        self.assertEqual(parts, [[], []])

    def test_what_cannot_be_known_is_refused(self):
        with self.assertRaisesRegex(ValueError, "`track_updates` must be True"):
            _store(track_updates=False).mark()
        store, other = _store(), _store()
        with self.assertRaisesRegex(ValueError, "of another store"):
            store.removed(other.mark())
        with self.assertRaisesRegex(ValueError, "of another store"):
            list(store.changed(other.mark()))

    @parameterized.parameters("exact", "hogwild")
    @mock.patch.object(row_blocks, "_MOVED_BYTES", 1 << 11)
    def test_nothing_is_missed_while_steps_run(self, mode):
        store = _store(2, mode=mode)

        @tf.function(autograph=False)
        def step_of(values, step):
            ids = {t.name: values + (t.slot << 48) for t in _TABLES}
            pulled = store.lookup(ids, training=True, step=step)
            ones = {name: tf.ones_like(rows) for name, rows in pulled.rows.items()}
            store.apply_gradients(pulled, ones, step)

        step_of(tf.zeros([4], tf.int64), tf.constant(0, tf.int64))
        stop, failures = threading.Event(), []

        def train(seed):
            rng = np.random.default_rng(seed)
            try:
                while not stop.is_set():
                    values = tf.constant(rng.integers(0, 300, 40), tf.int64)
                    step_of(values, tf.constant(int(steps[0]), tf.int64))
                    steps[0] += 1
            except Exception as error:  # Shown by the test's own thread.
                failures.append(error)

        steps = [1]
        threads = [threading.Thread(target=train, args=(seed,)) for seed in range(3)]
        since, copy = store.mark(), {}
        copy |= _rows(store.changed(since)) | {
            int(i): (w.tobytes(), b"") for c in store.rows() for i, w in _pairs(c)
        }

        def follow(since):
            mark = store.mark()
            for id_ in store.removed(since).tolist():
                copy.pop(id_, None)
            for _, chunk in store.changed(since):
                copy.update({int(i): (w.tobytes(), b"") for i, w in _pairs(chunk)})
            return mark

        for thread in threads:
            thread.start()
        for _ in range(5):
            since = follow(since)
            store.maintain(int(steps[0]))
        stop.set()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        since = follow(since)
        since = follow(since)
        now = {int(i): (w.tobytes(), b"") for c in store.rows() for i, w in _pairs(c)}
        self.assertEqual(copy, now)


def _pairs(chunk):
    return zip(chunk.ids, chunk.weights, strict=True)
