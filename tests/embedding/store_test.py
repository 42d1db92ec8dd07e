"""Tests of the partitioned store in functions, loops and eager steps."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from tensorflow.python.framework import config

from monolith_tf import testing
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding.initializer_spec import ConstantSpec
from monolith_tf.embedding.initializer_spec import NormalSpec
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import SliceSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.embedding.table import Table

_SGD = optimizer_spec.SgdSpec(learning_rate=0.5)
_SLOT = 1 << 48


def _store(num_shards=1, mode="exact", capacity=256, **options):
    """One table of width 1 that starts at 2, read by `one` and `list`."""
    defaults = {"dim": 1, "optimizer": _SGD, "initializer": ConstantSpec(value=2.0)}
    table = TableSpec(name="t", slot=1, **(defaults | options))
    columns = [
        ColumnSpec(feature="one", table="t"),
        ColumnSpec(feature="list", table="t", combiner="mean"),
    ]
    placement = Placement(num_shards=num_shards)
    return EmbeddingStore(
        [table], columns, placement=placement, mode=mode, capacity=capacity
    )


def _one(*values):
    return {"one": tf.constant(values, tf.int64) + _SLOT}


def _read(store, *values):
    pulled = store.lookup(_one(*values), training=False)
    return store.combine(pulled)["one"]["vec"].numpy()[:, 0]


def _train(store, ids, gradients, step=0, **when):
    """Pushes one gradient per id."""
    pulled = store.lookup(ids, training=True, step=step, **when)
    with tf.GradientTape() as tape:
        tape.watch(pulled.rows)
        embedding = store.combine(pulled)["one"]["vec"]
        loss = tf.reduce_sum(embedding * tf.convert_to_tensor(gradients)[:, tf.newaxis])
    store.apply_gradients(pulled, tape.gradient(loss, pulled.rows), step)
    return embedding


def _count(store, counter):
    return int(store.counters()[counter][0])


class LookupTest(testing.TestCase):
    def test_training_inserts_and_evaluation_does_not(self):
        store = _store()
        self.assertAllEqual(_read(store, 7), [0.0])
        self.assertEqual(_count(store, "rows"), 0)
        store.lookup(_one(7, 7, 8), training=True)
        self.assertEqual(_count(store, "rows"), 2)
        self.assertAllEqual(_read(store, 7, 9, 8), [2.0, 0.0, 2.0])

    def test_unknown_zeros_inserts_at_the_first_gradient(self):
        store = _store(unknown="zeros")
        self.assertAllEqual(_train(store, _one(7), [1.0]), [[0.0]])
        self.assertAllEqual(_train(store, _one(7), [1.0]), [[1.5]])
        self.assertAllEqual(_read(store, 7), [1.0])

    def test_tables_of_one_group_insert_each_in_its_own_time(self):
        start = ConstantSpec(value=2.0)
        tables = [
            TableSpec(name="soon", slot=1, dim=1, initializer=start),
            TableSpec(name="late", slot=2, dim=1, initializer=start, unknown="zeros"),
        ]
        columns = [ColumnSpec(feature=t.name, table=t.name) for t in tables]
        store = EmbeddingStore(tables, columns, capacity=64)
        ids = {t.name: tf.constant([t.slot << 48], tf.int64) for t in tables}
        pulled = store.lookup(ids, training=True)
        self.assertLen(pulled.rows, 1)
        rows = {name: x["vec"] for name, x in store.combine(pulled).items()}
        self.assertAllEqual(rows, {"soon": [[2.0]], "late": [[0.0]]})
        self.assertAllEqual(store.counters()["rows"], [1, 0])
        zeros = {name: tf.zeros_like(x) for name, x in pulled.rows.items()}
        store.apply_gradients(pulled, zeros, 0)
        self.assertAllEqual(store.counters()["rows"], [1, 1])

    def test_tables_of_one_group_start_each_in_its_own_way(self):
        starts = [ConstantSpec(value=2.0), NormalSpec(), ConstantSpec(value=3.0)]
        tables = [
            TableSpec(name=f"t{slot}", slot=slot, dim=4, initializer=start)
            for slot, start in enumerate(starts, 1)
        ]
        columns = [ColumnSpec(feature=t.name, table=t.name) for t in tables]
        store = EmbeddingStore(tables, columns, capacity=64, seed=5)
        ids = {t.name: tf.constant([t.slot << 48], tf.int64) for t in tables}
        pulled = store.lookup(ids, training=True)
        self.assertLen(pulled.rows, 1)
        rows = store.combine(pulled)
        for spec in tables:
            expected = Table(spec, seed=5).lookup([spec.slot << 48], training=True)
            self.assertAllEqual(rows[spec.name]["vec"], expected)
        self.assertAllEqual(rows["t1"]["vec"], [[2.0] * 4])
        self.assertAllEqual(rows["t3"]["vec"], [[3.0] * 4])

    def test_refused_ids_read_zeros_and_their_gradients_are_dropped(self):
        store = _store(admit_after=3)
        ids = _one(7, 8, 8, 8)
        embedding = _train(store, ids, [1.0, 1.0, 1.0, 1.0])
        self.assertAllEqual(embedding, [[0.0], [2.0], [2.0], [2.0]])
        self.assertAllEqual(_read(store, 7, 8), [0.0, 0.5])
        counters = {name: int(value[0]) for name, value in store.counters().items()}
        self.assertEqual(
            counters,
            {
                "rows": 1,
                "inserted": 1,
                "refused": 1,
                "overflow": 0,
                "dropped": 1,
                "expired": 0,
                "evicted": 0,
            },
        )

    def test_negative_and_extreme_ids_have_rows_of_their_own(self):
        store = _store(large_integers="exact")
        extreme = [0, 1, -1, 2**63 - 1, -(2**63)]
        ids = {"one": tf.constant(extreme, tf.int64)}
        _train(store, ids, [0.0, 1.0, 2.0, 3.0, 4.0])
        pulled = store.lookup(ids, training=False)
        embedding = store.combine(pulled)["one"]["vec"]
        self.assertAllEqual(embedding[:, 0], [2.0, 1.5, 1.0, 0.5, 0.0])

    def test_an_empty_batch_works(self):
        store = _store(num_shards=2)
        self.assertEqual(_train(store, _one(), np.zeros([0], np.float32)).shape, (0, 1))
        lists = tf.RaggedTensor.from_row_splits(tf.zeros([0], tf.int64), [0, 0, 0])
        pulled = store.lookup({"list": lists}, training=True)
        self.assertAllEqual(store.combine(pulled)["list"]["vec"], [[0.0], [0.0]])

    def test_slices_come_by_name(self):
        slices = (
            SliceSpec(name="bias", dim=1, initializer=ConstantSpec(value=1.0)),
            SliceSpec(name="vec", dim=2, initializer=ConstantSpec(value=3.0)),
        )
        table = TableSpec(name="t", slot=1, slices=slices)
        store = EmbeddingStore([table], [ColumnSpec(feature="f", table="t")])
        pulled = store.lookup({"f": tf.constant([_SLOT])}, training=True)
        embeddings = store.combine(pulled)
        self.assertAllEqual(embeddings["f"]["bias"], [[1.0]])
        self.assertAllEqual(embeddings["f"]["vec"], [[3.0, 3.0]])

    def test_static_shapes_survive(self):
        store = _store()

        @tf.function
        def embed(ids):
            pulled = store.lookup({"one": ids}, training=True)
            return store.combine(pulled)["one"]["vec"]

        for batch in (8, None):
            spec = tf.TensorSpec([batch], tf.int64)
            shape = embed.get_concrete_function(spec).output_shapes
            self.assertEqual(shape.as_list(), [batch, 1])

    def test_asks_for_the_step_where_rows_expire_by_steps(self):
        store = _store(expire_after_steps=3)
        with self.assertRaisesRegex(ValueError, r"`step` must be given.*\['t'\]"):
            store.lookup(_one(7), training=True)
        with self.assertRaisesRegex(ValueError, "`step` must be given"):
            store.maintain()

    def test_asks_for_the_step_where_ids_are_admitted_by_chance(self):
        store = _store(admit_after=2, admission="probabilistic")
        with self.assertRaisesRegex(ValueError, r"`step` must be given.*\['t'\]"):
            store.lookup(_one(7), training=True)

    def test_rejects_an_unknown_mode(self):
        with self.assertRaisesRegex(ValueError, "'exact' or 'hogwild'.*mode='fast'"):
            _store(mode="fast")


class ApplyGradientsTest(testing.TestCase):
    @parameterized.product(num_shards=[1, 3], mode=["exact", "hogwild"])
    def test_sums_the_gradients_of_an_id(self, num_shards, mode):
        store = _store(num_shards, mode)
        _train(store, _one(7, 8, 7), [1.0, 2.0, 4.0])
        # 2 - 0.5 * (1 + 4), and 2 - 0.5 * 2.
        self.assertAllEqual(_read(store, 7, 8), [-0.5, 1.0])

    @parameterized.parameters(0.0, 0.25, 1.0, 3.0)
    def test_a_rate_scale_is_a_factor_of_the_learning_rate(self, scale):
        store = _store(num_shards=2)
        pulled = store.lookup(_one(7, 8), training=True)
        (name,) = pulled.rows
        gradients = {name: tf.constant([[1.0], [2.0]])}
        store.apply_gradients(pulled, gradients, 0, rate_scale=tf.constant(scale))
        # The learning rate is 0.5.
        expected = [2.0 - scale * 0.5, 2.0 - scale * 1.0]
        self.assertAllClose(_read(store, 7, 8), expected)

    def test_accepts_sparse_gradients_and_none(self):
        store = _store(num_shards=2)
        pulled = store.lookup(_one(7, 8), training=True)
        (name,) = pulled.rows
        store.apply_gradients(pulled, {name: None}, 0)
        store.apply_gradients(pulled, {}, 0)
        self.assertAllEqual(_read(store, 7, 8), [2.0, 2.0])
        values = tf.constant([[1.0], [2.0], [3.0]])
        sparse = tf.IndexedSlices(values, tf.constant([1, 0, 1], tf.int64))
        store.apply_gradients(pulled, {name: sparse}, 0)
        self.assertAllEqual(_read(store, 7, 8), [1.0, 0.0])

    def test_rejects_gradients_of_an_evaluation(self):
        store = _store()
        pulled = store.lookup(_one(7), training=False)
        with self.assertRaisesRegex(ValueError, "`pulled` must be what a lookup in"):
            store.apply_gradients(pulled, dict(pulled.rows), 0)

    def test_a_late_push_does_not_reach_rows_that_changed_hands(self):
        store = _store(expire_after_steps=5)
        late = store.lookup(_one(7), training=True, step=0)
        store.maintain(step=5)
        store.lookup(_one(8), training=True, step=5)  # Takes the freed row.
        (name,) = late.rows
        store.apply_gradients(late, {name: tf.ones([1, 1])}, 5)
        self.assertAllEqual(_read(store, 7, 8), [0.0, 2.0])
        self.assertEqual(_count(store, "dropped"), 1)

    def test_a_late_push_adds_to_newer_weights(self):
        store = _store()
        late = store.lookup(_one(7), training=True)
        _train(store, _one(7), [2.0])
        (name,) = late.rows
        store.apply_gradients(late, {name: tf.ones([1, 1])}, 1)
        self.assertAllEqual(_read(store, 7), [0.5])

    def test_works_in_a_loop_with_a_push_one_step_late(self):
        store = _store(num_shards=2)

        @tf.function
        def run():
            def push(step, pulled):
                gradients = {name: tf.ones_like(v) for name, v in pulled.rows.items()}
                store.apply_gradients(pulled, gradients, step)

            def body(step, pulled):
                ahead = store.lookup(_one(7, 8), training=True)
                push(step, pulled)
                return step + 1, ahead

            first = store.lookup(_one(7, 8), training=True)
            step, last = tf.while_loop(
                lambda step, _: step < 3, body, [tf.constant(0), first]
            )
            push(step, last)

        run()
        self.assertAllEqual(_read(store, 7, 8), [0.0, 0.0])


class StoreTest(testing.TestCase):
    @parameterized.named_parameters(
        ("adagrad", optimizer_spec.AdagradSpec()),
        ("adam", optimizer_spec.AdamSpec()),
        ("ftrl", optimizer_spec.FtrlSpec(l1=0.01)),
    )
    def test_functions_give_the_same_bits_on_any_number_of_shards(self, optimizer):
        # Many rows: what a kernel does at the end of a tensor must not show.
        batches = self.rng.integers(0, 150, [3, 101]) + _SLOT
        gradients = self.rng.normal(size=[3, 101]).astype(np.float32)
        results = []
        for num_shards, wrap in ((1, tf.function), (3, tf.function), (1, lambda f: f)):
            store = _store(num_shards, dim=5, optimizer=optimizer, initializer=None)
            train = wrap(
                lambda ids, gradients, step, store=store: _train(
                    store, {"one": ids}, gradients, step
                )
            )
            for step in range(3):
                train(
                    tf.constant(batches[step]),
                    tf.constant(gradients[step]),
                    tf.constant(step, tf.int64),
                )
            ids = {"one": tf.range(150, dtype=tf.int64) + _SLOT}
            pulled = store.lookup(ids, training=False)
            results.append(store.combine(pulled)["one"]["vec"].numpy())
        self.assertAllEqual(results[0], results[1])
        self.assertAllEqual(results[0], results[2])

    def test_number_of_operations_does_not_grow_with_features(self):
        def num_operations(num_features):
            tables = [
                TableSpec(name=f"t{i}", slot=i, dim=2) for i in range(num_features)
            ]
            columns = [
                ColumnSpec(feature=f"f{i}", table=f"t{i}") for i in range(num_features)
            ]
            store = EmbeddingStore(tables, columns, capacity=64)

            @tf.function
            def train(ids):
                pulled = store.lookup(ids, training=True)
                with tf.GradientTape() as tape:
                    tape.watch(pulled.rows)
                    loss = tf.add_n(
                        [
                            tf.reduce_sum(e["vec"])
                            for e in store.combine(pulled).values()
                        ]
                    )
                store.apply_gradients(pulled, tape.gradient(loss, pulled.rows), 0)

            ids = {f"f{i}": tf.TensorSpec([4], tf.int64) for i in range(num_features)}
            graph = train.get_concrete_function(ids).graph.as_graph_def()
            nodes = [*graph.node]
            for function in graph.library.function:
                nodes += function.node_def
            # Loss and gradient of each feature are the test's own.
            own = {"Placeholder", "Identity", "Const", "Sum", "Fill", "Shape", "Tile"}
            own |= {"Reshape", "Maximum", "FloorDiv", "BroadcastTo", "Size", "Prod"}
            return len([node for node in nodes if node.op not in own])

        # Distinct ids are found in blocks of features, 32 at most.
        self.assertLessEqual(num_operations(80), num_operations(64) + 2)

    def test_checkpoints_of_tensorflow_do_not_see_the_rows(self):
        store = _store()
        self.assertEmpty(store.variables)
        module = tf.Module()
        module.store = store
        module.dense = tf.Variable(1.0)
        self.assertLen(module.variables, 1)
        prefix = tf.train.Checkpoint(module=module).write(self.get_temp_dir() + "/c")
        names = [name for name, _ in tf.train.list_variables(prefix)]
        self.assertLen([name for name in names if "VARIABLE_VALUE" in name], 1)

    def test_memory_is_taken_as_rows_are_written(self):
        before = _resident_bytes()
        store = _store(capacity=20_000_000, dim=16)  # 1.3 GB of weights and ids.
        _train(store, _one(*range(1000)), np.ones(1000, np.float32))
        self.assertLess(_resident_bytes() - before, 300e6)

    def test_op_determinism_is_not_refused(self):
        tf.config.experimental.enable_op_determinism()
        self.addCleanup(config.disable_op_determinism)
        store = _store(num_shards=2, admit_after=2, dim=4)
        train = tf.function(lambda ids: _train(store, ids, [1.0, 1.0, 2.0]))
        train(_one(7, 8, 7))
        self.assertEqual(_count(store, "rows"), 1)

    def test_describes_its_tables(self):
        tables = [
            TableSpec(name="a", slot=4, dim=3),
            TableSpec(name="b", slot=1, dim=5, expire_after_days=1.0),
            TableSpec(name="c", slot=2, dim=3),
        ]
        columns = [ColumnSpec(feature=t.name, table=t.name) for t in tables]
        store = EmbeddingStore(tables, columns, placement=Placement(num_shards=2))
        ids = {"c": tf.constant([1, 2], tf.int64) + (2 << 48)}
        store.lookup(ids, training=True)
        a, b, c = store.describe()
        self.assertEqual([info.name for info in (a, b, c)], ["a", "b", "c"])
        self.assertEqual((a.rows, b.rows, c.rows), (0, 0, 2))
        self.assertEqual((b.slot, b.dim, b.devices), (1, 5, ("/CPU:0", "/CPU:0")))
        # Weights, Adagrad's state, the id, and a node and bucket of a hash map.
        self.assertEqual(c.bytes, 2 * (3 * 4 + 3 * 4 + 8 + 43))
        counters = store.table_counters()
        self.assertEqual(list(counters), ["a", "b", "c"])
        self.assertEqual(set(counters["a"].values()), {0})
        expected = {"rows": 2, "inserted": 2, "bytes": c.bytes}
        self.assertEqual({key: counters["c"][key] for key in expected}, expected)


class RefusalTest(testing.TestCase):
    @parameterized.product(is_graph=[False, True], unknown=["insert", "zeros"])
    def test_ids_without_their_slot_are_an_error(self, is_graph, unknown):
        store = _store(unknown=unknown)
        train = lambda ids: _train(store, {"one": ids}, [1.0, 1.0])  # noqa: E731
        if is_graph:
            train = tf.function(train)
        right, wrong = _SLOT + 7, 9
        with self.assertRaisesRegex(
            tf.errors.InvalidArgumentError, r"(?s)slots: t: 1\..*Received:.*9"
        ):
            train(tf.constant([right, wrong], tf.int64))
        self.assertEqual(_count(store, "rows"), 0)
        train(tf.constant([right, right + 1], tf.int64))
        self.assertEqual(_count(store, "rows"), 2)

    @parameterized.parameters(1, 2)
    def test_an_id_has_the_row_of_its_slot_in_the_group_of_its_feature(self, dim):
        tables = [
            TableSpec(name=name, slot=slot, dim=width, optimizer=_SGD)
            for name, slot, width in (("t", 1, 1), ("other", 2, dim))
        ]
        columns = [ColumnSpec(feature=f"of_{t.name}", table=t.name) for t in tables]
        store = EmbeddingStore(tables, columns, capacity=256)
        ids = {"of_other": tf.constant([_SLOT + 7], tf.int64)}
        if dim == 1:  # One group.
            pulled = store.lookup(ids, training=True)
            ones = {name: tf.ones_like(rows) for name, rows in pulled.rows.items()}
            store.apply_gradients(pulled, ones, 0)
            (start,) = pulled.rows.values()
            of_t = store.lookup({"of_t": ids["of_other"]}, training=False)
            self.assertAllClose(store.combine(of_t)["of_t"]["vec"], start - 0.5)
        else:
            with self.assertRaises(tf.errors.InvalidArgumentError):
                store.lookup(ids, training=True)
            found = store.combine(store.lookup(ids, training=False))
            self.assertAllEqual(found["of_other"]["vec"], np.zeros([1, dim]))
        rows = {name: of["rows"] for name, of in store.table_counters().items()}
        self.assertEqual(rows, {"t": int(dim == 1), "other": 0})

    @parameterized.product(num_shards=[1, 2], num_rows=[1, 2, 4])
    def test_gradients_of_another_number_of_rows_are_an_error(
        self, num_shards, num_rows
    ):
        store = _store(num_shards=num_shards)
        before = _train(store, _one(7, 8, 9), [0.0, 0.0, 0.0])
        pulled = store.lookup(_one(7, 8, 9), training=True)
        (name,) = pulled.rows
        with self.assertRaisesRegex(ValueError, "must have the shape of its rows"):
            store.apply_gradients(pulled, {name: tf.ones([num_rows, 1])}, 0)

        @tf.function(input_signature=[tf.TensorSpec([None, 1])])
        def push(gradient):
            pulled = store.lookup(_one(7, 8, 9), training=True)
            store.apply_gradients(pulled, {name: gradient}, 0)

        with self.assertRaisesRegex(
            tf.errors.InvalidArgumentError, "a row for each row pulled"
        ):
            push(tf.ones([num_rows, 1]))
        self.assertAllEqual(_read(store, 7, 8, 9), before[:, 0])

    @parameterized.parameters([(3, 1)], [(1, 2)], [(3,)], [(3, 2, 1)])
    def test_gradients_of_another_width_are_an_error(self, shape):
        store = _store(num_shards=2, dim=2)
        store.lookup(_one(7, 8, 9), training=True)
        before = _read(store, 7, 8, 9)
        (name,) = (group.name for group in store.groups)

        @tf.function(input_signature=[tf.TensorSpec(None)])
        def push(gradient):
            pulled = store.lookup(_one(7, 8, 9), training=True)
            store.apply_gradients(pulled, {name: gradient}, 0)

        message = f"gradient of .?'{name}.?' must have a row for each row pulled"
        with self.assertRaisesRegex(tf.errors.InvalidArgumentError, message):
            push(tf.ones(shape))
        self.assertAllEqual(_read(store, 7, 8, 9), before)
        push(tf.ones([3, 2]))
        self.assertAllEqual(_read(store, 7, 8, 9), before - 0.5)

    @parameterized.parameters(
        (1, -1, 0, False), (16, 3, 0, True), (1, 2**32, 0, True), (16, 0, 1, True)
    )
    def test_sparse_gradients_of_other_rows_are_an_error(
        self, dim, place, width, is_graph
    ):
        store = _store(dim=dim)
        store.lookup(_one(7, 8, 9), training=True)
        before = _read(store, 7, 8, 9)
        (name,) = (group.name for group in store.groups)

        def push(values, places):
            pulled = store.lookup(_one(7, 8, 9), training=True)
            slices = tf.IndexedSlices(values, places)
            store.apply_gradients(pulled, {name: slices}, 0)

        if is_graph:
            signature = [tf.TensorSpec(None), tf.TensorSpec([None], tf.int64)]
            push = tf.function(push, input_signature=signature)
        message = f"gradient of .?'{name}.?' must have "
        message += "" if width else "indices of rows pulled"
        with self.assertRaisesRegex(
            (tf.errors.InvalidArgumentError, ValueError), message
        ):
            push(tf.ones([2, dim + width]), tf.constant([0, place], tf.int64))
        self.assertAllEqual(_read(store, 7, 8, 9), before)
        push(tf.ones([2, dim]), tf.constant([2, 2], tf.int64))
        self.assertAllEqual(_read(store, 7, 8, 9), before - np.array([0.0, 0.0, 1.0]))

    @parameterized.parameters(np.nan, np.inf, -np.inf)
    def test_a_gradient_that_is_not_finite_leaves_its_row_and_is_counted(self, value):
        store = _store(num_shards=2, optimizer=optimizer_spec.AdagradSpec())
        same = _store(num_shards=2, optimizer=optimizer_spec.AdagradSpec())
        _train(store, _one(7, 8, 9), [1.0, 1.0, 1.0])
        _train(store, _one(7, 8, 9), [1.0, value, 1.0])
        _train(same, _one(7, 8, 9), [1.0, 1.0, 1.0])
        _train(same, _one(7, 9), [1.0, 1.0])
        self.assertAllEqual(_read(store, 7, 8, 9), _read(same, 7, 8, 9))
        self.assertEqual(_count(store, "dropped"), 1)


def _resident_bytes():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096
