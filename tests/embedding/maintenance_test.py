"""Tests of what happens between steps: expiry, limits and growth."""

from unittest import mock

import tensorflow as tf

from monolith_tf import testing
from monolith_tf.embedding import expiry
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding import shard_rows
from monolith_tf.embedding.initializer_spec import ConstantSpec
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore

_SGD = optimizer_spec.SgdSpec(learning_rate=0.5)


def _store(num_shards=1, capacity=256, optimizer=_SGD, **options):
    table = TableSpec(
        name="t",
        slot=0,
        dim=1,
        optimizer=optimizer,
        initializer=ConstantSpec(value=2.0),
        **options,
    )
    return EmbeddingStore(
        [table],
        [ColumnSpec(feature="f", table="t")],
        placement=Placement(num_shards=num_shards),
        capacity=capacity,
    )


def _train(store, first, last, step=0, secs=0):
    """Takes one from the weights of the ids from `first` to before `last`."""
    ids = {"f": tf.range(first, last, dtype=tf.int64)}
    pulled = store.lookup(ids, training=True, step=step, now_secs=secs)
    gradients = {name: 2.0 * tf.ones_like(rows) for name, rows in pulled.rows.items()}
    store.apply_gradients(pulled, gradients, step)


def _read(store, first, last):
    ids = {"f": tf.range(first, last, dtype=tf.int64)}
    pulled = store.lookup(ids, training=False)
    return store.combine(pulled)["f"]["vec"].numpy()[:, 0].tolist()


def _counters(store):
    return {name: int(value[0]) for name, value in store.counters().items()}


class ExpiryTest(testing.TestCase):
    def test_drops_old_rows_and_gives_their_place_to_new_ids(self):
        store = _store(expire_after_steps=10, capacity=8)
        _train(store, 0, 5, step=0)
        _train(store, 3, 5, step=5)
        report = store.maintain(step=10)
        self.assertEqual(report.expired, {"t": 3})
        self.assertFalse(report.retrace)
        _train(store, 10, 15, step=11)
        self.assertEqual(_read(store, 10, 15), [1.0] * 5)
        self.assertEqual(_counters(store)["overflow"], 0)

    def test_expired_ids_start_anew(self):
        store = _store(num_shards=2, expire_after_steps=10)
        _train(store, 0, 4, step=0)
        _train(store, 2, 4, step=1)
        self.assertEqual(_read(store, 0, 4), [1.0, 1.0, 0.0, 0.0])
        self.assertEqual(store.maintain(step=10).expired, {"t": 2})
        _train(store, 0, 1, step=10)
        self.assertEqual(_read(store, 0, 4), [1.0, 0.0, 0.0, 0.0])
        self.assertEqual(_counters(store)["rows"], 3)

    def test_new_state_is_not_what_the_former_id_left(self):
        adagrad = optimizer_spec.AdagradSpec(learning_rate=1.0)
        store = _store(expire_after_steps=1, optimizer=adagrad)
        _train(store, 0, 1, step=0)
        fresh = _read(store, 0, 1)
        store.maintain(step=1)
        _train(store, 1, 2, step=1)
        self.assertEqual(_read(store, 1, 2), fresh)

    def test_expires_by_days(self):
        store = _store(expire_after_days=1.0)
        _train(store, 0, 2, secs=0)
        _train(store, 1, 2, secs=10)
        self.assertEqual(store.maintain(now_secs=86_399).expired, {"t": 0})
        self.assertEqual(store.maintain(now_secs=86_400).expired, {"t": 1})
        self.assertEqual(store.maintain(now_secs=86_410).expired, {"t": 1})

    def test_the_clock_stands_in_for_a_time_not_given(self):
        store = _store(expire_after_days=1.0)
        store.lookup({"f": tf.constant([1], tf.int64)}, training=True)
        self.assertEqual(store.maintain().expired, {"t": 0})


class LimitTest(testing.TestCase):
    def test_a_table_over_its_limit_is_an_error_that_says_what_to_set(self):
        store = _store(num_shards=2, max_rows=3)
        _train(store, 0, 3)
        store.maintain()
        _train(store, 3, 5)
        with self.assertRaisesRegex(expiry.TableFullError, "`t` is full: .* 5 ids"):
            store.maintain()

    def test_evicts_the_oldest_over_all_shards(self):
        store = _store(num_shards=3, max_rows=4, when_full="evict_oldest")
        _train(store, 0, 8, step=0)
        _train(store, 5, 8, step=1)
        self.assertEqual(store.maintain(step=1).evicted, {"t": 4})
        # Of those that have not been updated since step 0, the largest id stays.
        self.assertEqual(_read(store, 0, 8), [0, 0, 0, 0, 1.0, 0.0, 0.0, 0.0])
        self.assertEqual(_counters(store)["rows"], 4)


class GrowthTest(testing.TestCase):
    def test_grows_before_room_is_used_up(self):
        store = _store(capacity=16)
        _train(store, 0, 8)
        self.assertFalse(store.maintain().retrace)
        _train(store, 8, 13)
        self.assertTrue(store.maintain().retrace)
        _train(store, 13, 30)
        self.assertEqual(_read(store, 0, 31), [1.0] * 30 + [0.0])
        self.assertEqual(_counters(store)["overflow"], 0)

    def test_ids_that_find_no_room_read_zeros_until_there_is_some(self):
        store = _store(capacity=16)  # One row belongs to no id.
        _train(store, 0, 20)
        self.assertEqual(_read(store, 0, 20), [1.0] * 15 + [0.0] * 5)
        self.assertEqual(_counters(store)["overflow"], 5)
        self.assertEqual(_counters(store)["dropped"], 5)
        self.assertTrue(store.maintain().retrace)
        _train(store, 0, 20)
        self.assertEqual(_read(store, 0, 20), [0.0] * 15 + [1.0] * 5)

    def test_functions_traced_before_growth_fail_and_do_no_harm(self):
        store = _store(capacity=16)
        train = tf.function(lambda: _train(store, 0, 14))
        train()
        store.maintain()
        with self.assertRaises(tf.errors.InvalidArgumentError):
            train()
        tf.function(lambda: _train(store, 0, 14))()
        self.assertEqual(_read(store, 0, 14), [0.0] * 14)

    def test_growth_keeps_freed_rows_and_stamps(self):
        store = _store(capacity=20, expire_after_steps=10)
        _train(store, 0, 13, step=0)
        _train(store, 2, 13, step=5)
        self.assertFalse(store.maintain(step=10).retrace)  # Frees two rows.
        _train(store, 20, 24, step=11)
        self.assertTrue(store.maintain(step=11).retrace)
        _train(store, 30, 40, step=12)
        self.assertEqual(store.maintain(step=15).expired, {"t": 11})
        self.assertEqual(_read(store, 20, 24) + _read(store, 30, 40), [1.0] * 14)

    def test_says_what_to_do_where_memory_is_short(self):
        store = _store(capacity=16)
        _train(store, 0, 14)
        refused = tf.errors.ResourceExhaustedError(None, None, "OOM")
        with mock.patch.object(shard_rows, "lazy_variable", side_effect=refused):
            with self.assertLogs("absl", "WARNING") as logs:
                self.assertFalse(store.maintain().retrace)
            self.assertIn("room for 6% more", logs.output[0])
            _train(store, 0, 15)
            message = "no memory on /CPU:0 .* `t`: they hold 15 ids"
            with self.assertRaisesRegex(expiry.TableFullError, message):
                store.maintain()
        self.assertEqual(_read(store, 0, 15), [0.0] * 14 + [1.0])
