"""Random histories: a store on any number of shards equals the reference tables."""

import dataclasses
import itertools
import os
import tempfile

import hypothesis
import numpy as np
import tensorflow as tf
from hypothesis import strategies as st

from monolith_tf import testing
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding.initializer_spec import ConstantSpec
from monolith_tf.embedding.initializer_spec import NormalSpec
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.shard.shard_rows import ShardRows
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import SliceSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.embedding.table import Table
from monolith_tf.schedules import ScheduleSpec

_SEED = 5
_SECS_PER_STEP = 3600
_TABLES = (
    # The first four share a physical group, and differ in all that may differ.
    TableSpec(name="plain", slot=1, dim=3),
    TableSpec(
        name="bounded",
        slot=2,
        dim=3,
        optimizer=optimizer_spec.AdagradSpec(
            learning_rate=ScheduleSpec(learning_rate=0.3, warmup_steps=4),
            weight_decay=0.1,
            initial_accumulator_value=0.5,
        ),
        initializer=NormalSpec(),
        clip_norm=0.7,
        max_rows=4,
        when_full="evict_oldest",
    ),
    TableSpec(
        name="rare",
        slot=40,
        dim=3,
        initializer=ConstantSpec(value=0.25),
        admit_after=3,
        expire_after_steps=3,
    ),
    TableSpec(name="drawn", slot=9, dim=3, admit_after=3, admission="probabilistic"),
    TableSpec(
        name="lazy",
        slot=7,
        unknown="zeros",
        admit_after=2,
        expire_after_days=0.125,
        slices=(
            SliceSpec(name="bias", dim=1, optimizer=optimizer_spec.FtrlSpec(l1=0.01)),
            SliceSpec(name="vec", dim=2, optimizer=optimizer_spec.AdamSpec()),
        ),
    ),
    TableSpec(
        name="whole",
        slot=12,
        dim=3,
        l2=0.2,
        clip_norm=0.5,
        optimizer=optimizer_spec.AdamSpec(),
        admit_after=2,
        update_rows="all",
    ),
)
_COLUMNS = (
    ColumnSpec(feature="plain_id", table="plain"),
    ColumnSpec(feature="plain_list", table="plain", combiner="none"),
    ColumnSpec(feature="bounded_id", table="bounded"),
    ColumnSpec(feature="drawn_id", table="drawn"),
    ColumnSpec(feature="rare_list", table="rare", combiner="none"),
    ColumnSpec(feature="lazy_id", table="lazy"),
    ColumnSpec(feature="lazy_list", table="lazy", combiner="none"),
    ColumnSpec(feature="whole_list", table="whole", combiner="none"),
)
_BATCH = 4


@dataclasses.dataclass(frozen=True)
class _Batch:
    """Feature -> one list of small values per example."""

    values: dict[str, list[list[int]]]
    seed: int
    is_pushed: bool

    def ids(self) -> dict[str, object]:
        ids = {}
        for column in _COLUMNS:
            lists = self.values[column.feature]
            flat = tf.constant(_ids(column.table, _joined(lists)), tf.int64)
            if column.combiner == "none":
                flat = tf.RaggedTensor.from_row_lengths(flat, [len(x) for x in lists])
            ids[column.feature] = flat
        return ids

    def occurrences(self, table: str) -> dict[str, list[int]]:
        """Feature -> ids, in the order in which the store meets them."""
        columns = [c for c in _COLUMNS if c.table == table]
        columns.sort(key=lambda c: c.combiner == "none")
        return {
            c.feature: _ids(table, _joined(self.values[c.feature])) for c in columns
        }

    def gradients(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(self.seed)
        return {
            c.feature: rng.normal(
                size=[sum(map(len, self.values[c.feature])), 3]
            ).astype(np.float32)
            for c in _COLUMNS
        }


def _joined(lists) -> list:
    return list(itertools.chain.from_iterable(lists))


def _ids(table: str, values: list[int]) -> list[int]:
    slot = next(t.slot for t in _TABLES if t.name == table)
    return [(slot << 48) + value for value in values]


@st.composite
def _batches(draw: st.DrawFn) -> _Batch:
    values = {}
    for column in _COLUMNS:
        lengths = st.just(1) if column.combiner != "none" else st.integers(0, 3)
        values[column.feature] = [
            draw(st.lists(st.integers(0, 8), min_size=n, max_size=n))
            for n in draw(st.lists(lengths, min_size=_BATCH, max_size=_BATCH))
        ]
    return _Batch(values, draw(st.integers(0, 1000)), draw(st.integers(0, 5)) > 0)


_OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("train"), _batches()),
        st.tuples(st.just("train"), _batches()),
        st.tuples(st.just("evaluate"), _batches()),
        st.tuples(st.just("maintain"), st.none()),
        st.tuples(st.just("move"), st.integers(1, 5)),
    ),
    min_size=3,
    max_size=9,
)


class _Pair:
    """A store and the reference tables, given the same history."""

    def __init__(self, num_shards: int) -> None:
        self.store = _make_store(num_shards)
        self.tables = {spec.name: Table(spec, _SEED) for spec in _TABLES}
        self.step = 0

    def train(self, batch: _Batch) -> None:
        secs = self.step * _SECS_PER_STEP
        pulled = self.store.lookup(
            batch.ids(), training=True, step=self.step, now_secs=secs
        )
        gradients = batch.gradients()
        with tf.GradientTape() as tape:
            tape.watch(pulled.rows)
            embeddings = _flat(self.store.combine(pulled))
            loss = tf.add_n(
                [tf.reduce_sum(embeddings[f] * gradients[f]) for f in gradients]
            )
        for table in self.tables.values():
            self._compare_lookup(table, batch, embeddings, training=True)
        if not batch.is_pushed:
            self.step += 1
            return
        self.store.apply_gradients(pulled, tape.gradient(loss, pulled.rows), self.step)
        for table in self.tables.values():
            occurrences = batch.occurrences(table.spec.name)
            table.apply_gradients(
                _joined(occurrences.values()),
                np.concatenate([gradients[f] for f in occurrences]),
                step=self.step,
                secs=secs,
            )
        self.step += 1

    def evaluate(self, batch: _Batch) -> None:
        pulled = self.store.lookup(batch.ids(), training=False)
        embeddings = _flat(self.store.combine(pulled))
        for table in self.tables.values():
            self._compare_lookup(table, batch, embeddings, training=False)

    def maintain(self, _: None) -> None:
        secs = self.step * _SECS_PER_STEP
        self.store.maintain(self.step, secs)
        for table in self.tables.values():
            table.maintain(self.step, secs)

    def move(self, num_shards: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            directory = os.path.join(folder, "checkpoint")
            self.store.save(directory, step=self.step, now_secs=0)
            self.store = _make_store(num_shards)
            self.store.restore(directory)

    def compare(self) -> None:
        rows = {}
        for shards in self.store._shards.values():
            for shard in shards:
                for chunk in ShardRows(shard).chunks(3):
                    for place, id_ in enumerate(chunk.ids.tolist()):
                        assert id_ not in rows
                        stamps = {k: v[place] for k, v in chunk.stamps.items()}
                        rows[id_] = (chunk.rows[place], stamps)
        expected = {}
        for table in self.tables.values():
            for id_, row in table.rows.items():
                weights = [row.parts[s.name][0] for s in table.spec.row_slices()]
                state = [row.parts[s.name][1:] for s in table.spec.row_slices()]
                expected[id_] = (np.concatenate(weights + _joined(state)), row)
        assert set(rows) == set(expected)
        for id_, (values, stamps) in rows.items():
            np.testing.assert_array_equal(values, expected[id_][0])
            if "step" in stamps:
                assert stamps["step"] == expected[id_][1].step
            if "secs" in stamps:
                assert stamps["secs"] == expected[id_][1].secs
        counters = self.store.counters()
        for place, table in enumerate(self.tables.values()):
            assert counters["rows"][place] == len(table.rows)
            for name in ("inserted", "refused", "dropped", "expired", "evicted"):
                assert counters[name][place] == table.counters[name], name

    def _compare_lookup(
        self, table: Table, batch: _Batch, embeddings: dict, training: bool
    ) -> None:
        occurrences = batch.occurrences(table.spec.name)
        ids = _joined(occurrences.values())
        expected = table.lookup(
            ids,
            training=training,
            step=self.step,
            secs=self.step * _SECS_PER_STEP,
        )
        actual = np.concatenate([embeddings[f] for f in occurrences])
        np.testing.assert_array_equal(actual, expected)


def _make_store(num_shards: int) -> EmbeddingStore:
    return EmbeddingStore(
        _TABLES,
        _COLUMNS,
        seed=_SEED,
        placement=Placement(num_shards=num_shards),
        capacity=128,
    )


def _flat(embeddings: dict) -> dict[str, tf.Tensor]:
    """One row per occurrence, all slices side by side."""
    flat = {}
    for feature, slices in embeddings.items():
        values = [
            value.values if isinstance(value, tf.RaggedTensor) else value
            for value in slices.values()
        ]
        flat[feature] = tf.concat(values, axis=1)
    return flat


class StorePropertiesTest(testing.TestCase):
    @hypothesis.settings(
        derandomize=True,
        deadline=None,
        max_examples=8,
        database=None,
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(num_shards=st.integers(1, 5), operations=_OPERATIONS)
    def test_equals_reference_on_any_number_of_shards(self, num_shards, operations):
        pair = _Pair(num_shards)
        for name, argument in operations:
            getattr(pair, name)(argument)
        pair.compare()
