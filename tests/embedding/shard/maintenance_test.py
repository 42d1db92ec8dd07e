"""Tests of what happens between steps: expiry, limits and growth."""

from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import testing
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding.initializer_spec import ConstantSpec
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.shard import expiry
from monolith_tf.embedding.shard import row_blocks
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


class WrongClockTest(testing.TestCase):
    _YEAR = 365 * 86_400

    def test_a_clock_that_is_a_year_ahead_drops_nothing(self):
        store = _store(expire_after_days=30)
        _train(store, 0, 2000, secs=1_700_000_000)
        store.maintain(1, now_secs=1_700_000_100)
        with self.assertRaisesRegex(
            expiry.ExpiryError, "Table `t`: 2000 of 2000 rows.*Check this machine's"
        ):
            store.maintain(2, now_secs=1_700_000_000 + self._YEAR)
        with self.assertRaises(expiry.ExpiryError):  # Nor does a second try.
            store.maintain(2, now_secs=1_700_000_000 + self._YEAR)
        self.assertEqual(_counters(store)["rows"], 2000)
        report = store.maintain(3, now_secs=1_700_000_200)
        self.assertEqual(report.expired, {"t": 0})

    def test_a_table_may_let_all_its_rows_expire(self):
        store = _store(expire_after_days=30, max_expired_share=1.0)
        _train(store, 0, 2000, secs=1_700_000_000)
        report = store.maintain(2, now_secs=1_700_000_000 + self._YEAR)
        self.assertEqual(report.expired, {"t": 2000})

    def test_rows_expire_day_by_day_as_before(self):
        store = _store(expire_after_days=2)
        for day in range(6):
            _train(store, 1000 * day, 1000 * (day + 1), secs=86_400 * day)
            store.maintain(day, now_secs=86_400 * day)
        self.assertEqual(_counters(store)["expired"], 4000)

    def test_rejects_a_share_that_is_none(self):
        with self.assertRaisesRegex(
            ValueError, "above 0 and at most 1. Received: .*=0"
        ):
            _store(max_expired_share=0)


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
    """With blocks of few rows, so that there are several."""

    def setUp(self):
        super().setUp()
        self.enter_context(mock.patch.object(row_blocks, "_MOVED_BYTES", 1 << 11))

    @parameterized.parameters(1, 2)
    def test_no_id_is_refused_in_the_middle_of_a_loop_of_steps(self, num_shards):
        store = _store(num_shards=num_shards, capacity=16)

        @tf.function
        def loop(starts):
            for start in starts:
                _train(store, start, start + 50)

        loop(tf.range(0, 1000, 40, dtype=tf.int64))
        self.assertEqual(_read(store, 0, 1011), _trained_in_pieces(0, 1000))
        counters = _counters(store)
        self.assertEqual(counters["overflow"] + counters["dropped"], 0)
        self.assertEqual(counters["rows"], 1010)

    def test_functions_traced_before_growth_go_on_without_a_new_trace(self):
        store = _store(capacity=16)
        train = tf.function(
            lambda first, last: _train(store, first, last),
            input_signature=[tf.TensorSpec([], tf.int64)] * 2,
        )
        for last in (10, 30, 100, 300, 1000):
            train(tf.constant(0, tf.int64), tf.constant(last, tf.int64))
            store.maintain()
        self.assertEqual(train.experimental_get_tracing_count(), 1)
        self.assertEqual(_read(store, 0, 12), [-3.0] * 10 + [-2.0] * 2)
        self.assertEqual(_read(store, 998, 1001), [1.0, 1.0, 0.0])

    def test_grows_before_room_is_used_up(self):
        store = _store(capacity=16)
        _train(store, 0, 8)
        store.maintain()
        self.assertEqual(_capacity(store), 16)
        _train(store, 8, 13)
        store.maintain()
        self.assertGreaterEqual(_capacity(store), 32)

    def test_grows_in_good_time_again_and_again(self):
        store = _store(capacity=16)
        for _ in range(3):
            before = _capacity(store)
            _train(store, 0, before * 13 // 16)
            store.maintain()
            self.assertGreater(_capacity(store), before)

    def test_growth_keeps_freed_rows_stamps_and_state(self):
        adagrad = optimizer_spec.AdagradSpec(learning_rate=1.0)
        store = _store(capacity=20, expire_after_steps=10, optimizer=adagrad)
        same = _store(capacity=4096, expire_after_steps=10, optimizer=adagrad)
        for one in (store, same):
            _train(one, 0, 13, step=0)
            _train(one, 2, 13, step=5)
            self.assertEqual(one.maintain(step=10).expired, {"t": 2})
            _train(one, 4, 400, step=11)
            self.assertEqual(one.maintain(step=15).expired, {"t": 2})
            _train(one, 30, 500, step=16)
            self.assertEqual(one.maintain(step=21).expired, {"t": 26})
            _train(one, 300, 2000, step=22)
        self.assertEqual(_read(store, 0, 2000), _read(same, 0, 2000))
        self.assertEqual(_counters(store), _counters(same))

    def test_memory_that_is_refused_leaves_all_as_it_was(self):
        table = TableSpec(name="t", slot=0, dim=1 << 14)
        columns = [ColumnSpec(feature="f", table="t")]
        store = EmbeddingStore([table], columns, capacity=16)
        _train(store, 0, 14)
        (shard,) = next(iter(store._shards.values()))
        with self.assertRaises(tf.errors.ResourceExhaustedError):
            shard.reserve(1 << 31)
        _train(store, 0, 20)
        self.assertEqual(_counters(store)["rows"], 20)
        self.assertEqual(_counters(store)["overflow"], 0)

    def test_a_step_that_fails_leaves_no_row_behind(self):
        store = _store(capacity=16)
        train = tf.function(
            lambda first, last: _train(store, first, last),
            input_signature=[tf.TensorSpec([], tf.int64)] * 2,
        )
        train(tf.constant(0, tf.int64), tf.constant(10, tf.int64))
        store.maintain()
        (shard,) = next(iter(store._shards.values()))
        capacity = int(shard.rows.capacity)
        shard.rows.capacity.assign(1000)  # More than there is.
        with self.assertRaises(tf.errors.InvalidArgumentError):
            train(tf.constant(0, tf.int64), tf.constant(200, tf.int64))
        shard.rows.capacity.assign(capacity)
        self.assertEqual(_counters(store)["rows"], 10)
        self.assertEqual(_read(store, 0, 20), [1.0] * 10 + [0.0] * 10)
        train(tf.constant(0, tf.int64), tf.constant(200, tf.int64))
        self.assertEqual(_read(store, 0, 201), [0.0] * 10 + [1.0] * 190 + [0.0])
        ids = np.concatenate([chunk.ids for chunk in store.rows()])
        self.assertAllEqual(np.sort(ids), np.arange(200))

    def test_says_what_to_do_where_memory_is_short(self):
        store = _store(capacity=16)
        (shard,) = next(iter(store._shards.values()))
        _train(store, 0, 14)
        refused = tf.errors.ResourceExhaustedError(None, None, "OOM")
        with mock.patch.object(shard, "grow", side_effect=refused):
            with self.assertLogs("absl", "WARNING") as logs:
                store.maintain()
            self.assertIn("room for 6% more", logs.output[0])
            with self.assertNoLogs("absl", "WARNING"):  # Said once.
                store.maintain()
            _train(store, 0, 15)
            num_bytes = store.table_counters()["t"]["bytes"]
            message = f"on /CPU:0 .* `t`: they hold 15 ids there, {num_bytes} bytes"
            with self.assertRaisesRegex(expiry.TableFullError, message):
                store.maintain()
        self.assertEqual(_read(store, 0, 15), [0.0] * 14 + [1.0])

    def test_a_step_asks_for_a_quarter_of_what_was_refused(self):
        store = _store(capacity=64)
        (shard,) = next(iter(store._shards.values()))
        _train(store, 0, 55)
        refused = tf.errors.ResourceExhaustedError(None, None, "OOM")
        with mock.patch.object(shard, "grow", side_effect=refused):
            store.maintain()
        # First 65 rows were refused, then a quarter of these.
        self.assertEqual(int(shard.rows.most_added), 65 // 4 // 4)

    def test_freed_rows_are_not_counted_where_memory_is_short(self):
        store = _store(capacity=16, expire_after_steps=5)
        (shard,) = next(iter(store._shards.values()))
        _train(store, 0, 2, step=0)
        _train(store, 2, 11, step=8)
        self.assertEqual(store.maintain(step=10).expired, {"t": 2})
        refused = tf.errors.ResourceExhaustedError(None, None, "OOM")
        with mock.patch.object(shard, "grow", side_effect=refused):
            _train(store, 20, 25, step=10)  # Two of them in the freed rows.
            self.assertEqual(int(shard.num_free), 0)
            shard.remove(np.array([20]), "expired", None)
            with self.assertLogs("absl", "WARNING") as logs:
                store.maintain(step=10)
        self.assertIn("they hold 13 ids there", logs.output[0])

    def test_ids_beyond_the_most_rows_are_counted_and_then_an_error(self):
        store = _store(capacity=16)
        (shard,) = next(iter(store._shards.values()))
        shard.rows.max_rows.assign(16)
        _train(store, 0, 20)
        self.assertEqual(_read(store, 0, 20), [1.0] * 15 + [0.0] * 5)
        self.assertEqual(_counters(store)["overflow"], 5)
        self.assertEqual(_counters(store)["dropped"], 5)
        with self.assertRaisesRegex(expiry.TableFullError, "hold 15 ids"):
            store.maintain()


def _capacity(store):
    return sum(int(shard.rows.capacity) for shard in next(iter(store._shards.values())))


def _trained_in_pieces(first, last):
    """Weights after a loop over pieces of 50 ids that overlap by 10."""
    weights = np.full(last + 11, 2.0)
    for start in range(first, last, 40):
        weights[start : start + 50] -= 1.0
    weights[-1] = 0.0  # No id of the loop.
    return weights.tolist()
