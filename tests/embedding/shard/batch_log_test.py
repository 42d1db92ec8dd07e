"""Tests of batches that come again after a worker died."""

import pytest
import tensorflow as tf

from monolith_tf.embedding.initializer_spec import ZerosSpec
from monolith_tf.embedding.optimizer_spec import SgdSpec
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.shard import batch_log
from monolith_tf.embedding.shard.clock import Clock
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore


def _store(mode="exact", **table):
    spec = TableSpec(
        name="t",
        slot=0,
        dim=2,
        initializer=ZerosSpec(),
        optimizer=SgdSpec(learning_rate=1.0),
        **table,
    )
    return EmbeddingStore(
        [spec],
        [ColumnSpec(feature="f", table="t")],
        placement=Placement(num_shards=2),
        mode=mode,
        capacity=64,
    )


class Steps:
    """The two halves of a step, with the gradient 1 for each id."""

    def __init__(self, store):
        self._store = store
        ids, batch = tf.TensorSpec([None], tf.int64), tf.TensorSpec([], tf.int64)
        self._pull = tf.function(
            lambda ids, batch: store.lookup(
                {"f": ids}, training=True, step=0, batch=batch
            ),
            input_signature=[ids, batch],
        )

        @tf.function
        def push(pulled):
            ones = {name: tf.ones_like(rows) for name, rows in pulled.rows.items()}
            store.apply_gradients(pulled, ones, 0)

        self.push = push

    def pull(self, ids, batch):
        return self._pull(tf.constant(ids, tf.int64), tf.constant(batch, tf.int64))

    def take(self, ids, batch):
        self.push(self.pull(ids, batch))

    def rows(self, ids):
        pulled = self._store.lookup({"f": tf.constant(ids, tf.int64)}, training=False)
        return self._store.combine(pulled)["f"]["vec"].numpy()[:, 0].tolist()

    def counters(self):
        return self._store.table_counters()["t"]


@pytest.mark.parametrize("mode", ["exact", "hogwild"])
@pytest.mark.parametrize("unknown", ["insert", "zeros"])
def test_a_batch_that_comes_again_changes_nothing(mode, unknown):
    steps = Steps(_store(mode, unknown=unknown))
    for batch in (0, 1, 0, 1, 1, 2):
        steps.take([3, 4 + batch], batch)
    assert steps.rows([3, 4, 5, 6]) == [-3, -1, -1, -1]
    assert steps.counters()["inserted"] == 4


def test_batches_may_come_in_any_order_and_between_each_other():
    steps = Steps(_store())
    first, second = steps.pull([1, 2], 7), steps.pull([2, 3], 5)
    again = steps.pull([1, 2], 7)
    for pulled in (again, second, first, second, again):
        steps.push(pulled)
    assert steps.rows([1, 2, 3]) == [-1, -2, -1]


def test_batches_that_all_have_finished_change_nothing_when_they_come_late():
    store = _store()
    steps = Steps(store)
    late, waiting = steps.pull([1], 4), steps.pull([1], 5)
    store.forget_batches(5)
    steps.push(late)
    steps.take([2], 3)
    assert steps.rows([1, 2]) == [0, 0]
    assert steps.counters()["inserted"] == 1
    steps.push(waiting)
    store.forget_batches(5)
    steps.push(waiting)
    assert steps.rows([1]) == [-1]


@pytest.mark.parametrize("admission", ["exact", "sketch"])
def test_ids_are_counted_once_until_they_get_a_row(admission):
    steps = Steps(_store(admit_after=3, admission=admission))
    for batch in (0, 0, 1, 1, 1):
        steps.take([1, 2], batch)
    counters = steps.counters()
    assert (counters["inserted"], counters["refused"]) == (0, 4)
    for batch in (2, 2, 1, 3, 2):
        steps.take([1], batch)
    assert steps.rows([1, 2]) == [-2, 0]
    counters = steps.counters()
    assert (counters["inserted"], counters["refused"]) == (1, 4)


@pytest.mark.parametrize("admission", ["exact", "sketch"])
def test_ids_that_were_refused_are_refused_again_after_others_brought_them_in(
    admission,
):
    steps = Steps(_store(admit_after=3, admission=admission))
    steps.pull([1, 2], 0)  # Its worker dies.
    steps.take([1, 2], 1)
    steps.take([1], 2)
    assert steps.rows([1]) == [-1]
    steps.take([1, 2], 0)
    steps.take([1], 2)
    assert steps.rows([1, 2]) == [-1, 0]
    steps.take([1, 2], 3)
    assert steps.rows([1, 2]) == [-2, -1]


def test_a_lookup_that_comes_again_finds_the_rows_of_the_first():
    steps = Steps(_store())
    steps.pull([1, 2], 0)
    steps.take([1, 2, 3], 0)
    # 3 was in no batch of that number before.
    assert steps.rows([1, 2, 3]) == [-1, -1, 0]


def test_each_shard_decides_by_itself():
    store = _store()
    steps = Steps(store)
    ids = list(range(1, 9))
    pulled = steps.pull(ids, 0)
    (name,) = pulled.shards
    # As if the worker died after it pushed to the first shard.
    part = pulled.shards[name][0]
    gradient = tf.gather(tf.ones_like(pulled.rows[name]), part.places)
    clock = Clock(tf.constant(0, tf.int64), (), pulled.batch)
    of_shard = store._steps[name]._of_shards[0]
    of_shard.packed.call("push", part._replace(places=()), gradient, clock, ())
    assert sorted(steps.rows(ids)) == [-1] * 4 + [0] * 4
    steps.push(pulled)
    assert steps.rows(ids) == [-1] * 8


def test_a_restored_store_has_seen_no_batch(tmp_path):
    store = _store()
    steps = Steps(store)
    steps.take([1], 0)
    store.save(str(tmp_path), step=1)
    steps.take([1], 1)
    store.forget_batches(2)
    store.restore(str(tmp_path))
    for batch in (1, 1, 0):
        steps.take([1], batch)
    assert steps.rows([1]) == [-3]


def test_a_batch_is_claimed_once():
    claims = batch_log.Claims("/device:CPU:0")
    claim = tf.function(claims.claim)
    got = [bool(claim(tf.constant(batch, tf.int64))) for batch in (0, 0, 2, 1, 2, 1, 3)]
    assert got == [True, False, True, True, False, False, True]
    claims.forget(5)
    assert [bool(claim(tf.constant(b, tf.int64))) for b in (4, 5, 5)] == [
        False,
        True,
        False,
    ]
