"""Random histories: a store equals a dict and NumPy, through growth and restores."""

import concurrent.futures
import dataclasses
import os
import tempfile
from typing import Any
from unittest import mock

import hypothesis
import numpy as np
import tensorflow as tf
from hypothesis import strategies as st

from monolith_tf import ids as ids_lib
from monolith_tf import testing
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding.initializer_spec import ConstantSpec
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.shard import row_blocks
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore

_START = 2.0
_SGD = {
    "dim": 2,
    "optimizer": optimizer_spec.SgdSpec(learning_rate=1.0),
    "initializer": ConstantSpec(value=_START),
}
# All in one group.
_TABLES = (
    TableSpec(name="plain", slot=1, **_SGD),
    TableSpec(name="rare", slot=2, admit_after=3, **_SGD),
    TableSpec(name="old", slot=5, expire_after_steps=3, **_SGD),
    TableSpec(name="full", slot=6, max_rows=20, when_full="evict_oldest", **_SGD),
    TableSpec(name="late", slot=9, unknown="zeros", **_SGD),
)


@dataclasses.dataclass
class _Row:
    """What a store should hold of an id."""

    value: float
    step: int


class _Model:
    """A dict of rows for each table, all of whose operations can be read at once."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[int, _Row]] = {t.name: {} for t in _TABLES}
        self.seen: dict[int, int] = {}
        self.counters = {
            t.name: dict.fromkeys(("inserted", "expired", "evicted"), 0)
            for t in _TABLES
        }

    def lookup(self, table: TableSpec, values: np.ndarray, step: int) -> np.ndarray:
        """Inserts what is new and admitted; `[n]`, the first weight of each."""
        rows = self.rows[table.name]
        for value, count in zip(*np.unique(values, return_counts=True), strict=True):
            value = int(value)
            if value in rows or table.unknown == "zeros":
                continue
            if table.admit_after > 1:
                self.seen[value] = self.seen.get(value, 0) + int(count)
                if self.seen[value] < table.admit_after:
                    continue
                del self.seen[value]
            self._insert(table, value, step)
        return self.read(table, values)

    def read(self, table: TableSpec, values: np.ndarray) -> np.ndarray:
        rows = self.rows[table.name]
        return np.array([rows[v].value if v in rows else 0.0 for v in values.tolist()])

    def update(self, table: TableSpec, values: np.ndarray, step: int) -> None:
        """Takes the number of occurrences from the weights."""
        rows = self.rows[table.name]
        for value, count in zip(*np.unique(values, return_counts=True), strict=True):
            value = int(value)
            if table.unknown == "zeros" and value not in rows:
                self._insert(table, value, step)
            if value in rows:
                rows[value].value -= int(count)
                rows[value].step = step

    def maintain(self, step: int) -> None:
        old = self.rows["old"]
        dead = [value for value, row in old.items() if step - row.step >= 3]
        for value in dead:
            del old[value]
        self.counters["old"]["expired"] += len(dead)
        full = self.rows["full"]
        slot = _slot("full")
        order = sorted(full, key=lambda value: (full[value].step, _id(slot, value)))
        surplus = order[: max(0, len(full) - 20)]
        for value in surplus:
            del full[value]
        self.counters["full"]["evicted"] += len(surplus)

    def _insert(self, table: TableSpec, value: int, step: int) -> None:
        self.rows[table.name][value] = _Row(_START, step)
        self.counters[table.name]["inserted"] += 1


def _slot(table: str) -> int:
    return next(t.slot for t in _TABLES if t.name == table)


def _id(slot: int, value: int) -> int:
    return (slot << ids_lib.HASH_BITS) | ids_lib.hash_integer(value)


class _Pair:
    """A store and its model, given the same history."""

    def __init__(self, num_shards: int, folder: str) -> None:
        self.store = _make_store(num_shards)
        self.model = _Model()
        self.step = 0
        self._folder = folder
        self._num_saved = 0
        self._full: str | None = None
        self._deltas: list[str] = []
        self._saved_at = 0
        self._train = self._traced()

    def _traced(self) -> Any:
        """One trace, that goes on through all growth."""

        @tf.function(autograph=False)
        def train(ids, step):
            pulled = self.store.lookup(ids, training=True, step=step)
            with tf.GradientTape() as tape:
                tape.watch(pulled.rows)
                found = self.store.combine(pulled)
                loss = tf.add_n([tf.reduce_sum(f["vec"]) for f in found.values()])
            self.store.apply_gradients(pulled, tape.gradient(loss, pulled.rows), step)
            return found

        signature = {t.name: tf.TensorSpec([None], tf.int64) for t in _TABLES}
        return train.get_concrete_function(signature, tf.TensorSpec([], tf.int64))

    def train(self, values: np.ndarray) -> None:
        found = self._train(_ids(values), tf.constant(self.step, tf.int64))
        for table in _TABLES:
            expected = self.model.lookup(table, values, self.step)
            np.testing.assert_array_equal(found[table.name]["vec"][:, 0], expected)
            self.model.update(table, values, self.step)
        self.step += 1

    def train_at_once(self, values: np.ndarray) -> None:
        """One step in each of several threads; the sums are the same in any order."""
        step = tf.constant(self.step, tf.int64)
        parts = np.array_split(values, 3)
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            for done in [pool.submit(self._train, _ids(p), step) for p in parts]:
                done.result(timeout=60)
        for table in _TABLES:
            for part in parts:
                self.model.lookup(table, part, self.step)
                self.model.update(table, part, self.step)
        self.step += 1

    def maintain(self, _: None) -> None:
        self.store.maintain(self.step)
        self.model.maintain(self.step)

    def save(self, is_delta: bool) -> None:
        directory = os.path.join(self._folder, str(self._num_saved))
        self._num_saved += 1
        is_delta = is_delta and self._full is not None
        since = self._saved_at if is_delta else None
        self.store.save(directory, step=self.step, since_step=since)
        if is_delta:
            self._deltas.append(directory)
        else:
            self._full, self._deltas = directory, []
        self._saved_at = self.step

    def move(self, num_shards: int) -> None:
        self.save(is_delta=True)
        self.store = _make_store(num_shards)
        self.store.restore(self._full, deltas=self._deltas)
        self._train = self._traced()

    def compare(self) -> None:
        values = np.arange(0, 700)
        pulled = self.store.lookup(_ids(values), training=False)
        found = self.store.combine(pulled)
        counters = self.store.table_counters()
        for table in _TABLES:
            expected = self.model.read(table, values)
            np.testing.assert_array_equal(found[table.name]["vec"][:, 1], expected)
            of_table = counters[table.name]
            assert of_table["rows"] == len(self.model.rows[table.name])
            assert of_table["overflow"] == 0
            for name, count in self.model.counters[table.name].items():
                assert of_table[name] == count, (table.name, name)
        expected = {
            _id(table.slot, value)
            for table in _TABLES
            for value in self.model.rows[table.name]
        }
        ids = np.concatenate([[], *(chunk.ids for chunk in self.store.rows())])
        assert len(ids) == len(expected)
        assert set(ids.astype(np.int64).tolist()) == expected
        for shard in self.store._shards[self.store.groups[0].name]:
            end, num_free = int(shard.next_row), int(shard.num_free)
            numbers, ids, _ = shard.in_use(1, end)
            free = shard.rows.read("free", tf.range(num_free, dtype=tf.int64)).numpy()
            everything = np.sort(np.concatenate([free, numbers]))
            np.testing.assert_array_equal(everything, np.arange(1, end))
            np.testing.assert_array_equal(shard.index.search(tf.constant(ids)), numbers)
            np.testing.assert_array_equal(shard.index.find(tf.constant(ids)), numbers)


def _ids(values: np.ndarray) -> dict[str, tf.Tensor]:
    hashed = ids_lib.from_integers(tf.constant(values, tf.int64))
    return {t.name: ids_lib.with_slot(t.slot, hashed) for t in _TABLES}


def _make_store(num_shards: int) -> EmbeddingStore:
    return EmbeddingStore(
        _TABLES,
        [ColumnSpec(feature=t.name, table=t.name) for t in _TABLES],
        placement=Placement(num_shards=num_shards),
        capacity=8,
        track_updates=True,
    )


_VALUES = st.one_of(
    st.lists(st.integers(0, 30), min_size=3, max_size=12).map(np.array),
    # Many at once, so that several blocks are added.
    st.tuples(st.integers(0, 400), st.integers(50, 300)).map(
        lambda pair: np.arange(pair[0], sum(pair))
    ),
)
_OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("train"), _VALUES),
        st.tuples(st.just("train"), _VALUES),
        st.tuples(st.just("train_at_once"), _VALUES),
        st.tuples(st.just("maintain"), st.none()),
        st.tuples(st.just("save"), st.booleans()),
        st.tuples(st.just("move"), st.integers(1, 2)),
    ),
    min_size=4,
    max_size=8,
)


class StoreModelTest(testing.TestCase):
    @hypothesis.settings(
        derandomize=True,
        deadline=None,
        max_examples=int(os.environ.get("MONOLITH_TF_STORE_HISTORIES", "2")),
        database=None,
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(num_shards=st.integers(1, 2), operations=_OPERATIONS)
    def test_equals_a_dict(self, num_shards, operations):
        with (
            mock.patch.object(row_blocks, "_MOVED_BYTES", 1 << 11),
            tempfile.TemporaryDirectory() as folder,
        ):
            pair = _Pair(num_shards, folder)
            for name, argument in operations:
                getattr(pair, name)(argument)
                pair.compare()
