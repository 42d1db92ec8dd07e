import pathlib
import re

import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

import monolith_tf as mt
from monolith_tf import testing
from monolith_tf.embedding import optimizer_spec

_SGD = {"name": "sgd", "learning_rate": 0.1}


def _functional(table):
    first = tf_keras.Input([3], dtype="int64")
    second = tf_keras.Input([2], dtype="int64")
    x = tf_keras.layers.Concatenate(axis=1)([table(first), 2.0 * table(second)])
    x = tf_keras.layers.Flatten()(x)
    y = tf_keras.layers.Dense(1, kernel_initializer="ones", dtype="float32")(x)
    return tf_keras.Model([first, second], y)


class _Subclassed(tf_keras.Model):
    def __init__(self, table):
        super().__init__()
        self.table = table
        self.dense = tf_keras.layers.Dense(1, kernel_initializer="ones")

    def call(self, inputs):
        first, second = inputs
        x = tf.concat([self.table(first), 2.0 * self.table(second)], axis=1)
        return self.dense(tf.reshape(x, [-1, 5 * x.shape[-1]]))


class _Decorated(_Subclassed):
    call = tf.function(_Subclassed.call)


def _sequential(table):
    layers = [table, tf_keras.layers.Flatten(), tf_keras.layers.Dense(1)]
    return tf_keras.Sequential(layers)


class EmbeddingTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        self.inputs = [self.rng.integers(10, size=(32, n)) for n in (3, 2)]
        self.labels = self.rng.normal(size=(32, 1)).astype("float32")
        self.start = self.rng.normal(size=(10, 4)).astype("float32")

    def _table(self, optimizer=_SGD, **options):
        table = mt.embedding.Embedding(4, optimizer=optimizer, **options)
        table.set_rows(np.arange(10), self.start)
        return table

    def _fit(self, model, optimizer=None, scale=1.0, **options):
        model.compile(optimizer or tf_keras.optimizers.SGD(0.1), "mse", **options)
        history = model.fit(
            self.inputs,
            self.labels * scale,
            batch_size=16,
            epochs=2,
            shuffle=False,
            verbose=0,
        )
        return history.history["loss"]

    def test_standard_behaviour(self):
        self.run_layer_test(
            mt.embedding.Embedding(4, name="table"),
            inputs=self.rng.integers(10, size=(3, 2)),
            output_shape=(3, 2, 4),
            zero_gradients=("anchor",),
            skip={
                "jit": "XLA has no hash tables",
                "empty_training": "counts steps",
            },
        )

    def test_config(self):
        self.run_config_test(
            mt.embedding.Embedding,
            {
                "dim": 3,
                "embeddings_initializer": tf_keras.initializers.RandomNormal(),
                "optimizer": optimizer_spec.AdamSpec(beta_1=0.5),
                "embeddings_regularizer": tf_keras.regularizers.L2(0.1),
                "clip_norm": 2.0,
                "mask_zero": True,
                "input_length": [2, 3],
                "seed": 7,
                "capacity": 50,
            },
        )

    @parameterized.named_parameters(
        ("functional", _functional, "sgd", {}),
        ("functional_adagrad", _functional, "adagrad", {}),
        ("functional_eager", _functional, "adagrad", {"run_eagerly": True}),
        ("subclassed", _Subclassed, "adagrad", {}),
        ("steps_per_execution", _Subclassed, "adagrad", {"steps_per_execution": 2}),
        ("decorated", _Decorated, "adagrad", {}),
        ("decorated_eager", _Decorated, "adagrad", {"run_eagerly": True}),
    )
    def test_trains_as_the_layer_of_keras_does(self, make, optimizer, options):
        # Keys repeat in a batch, and both calls share the table.
        ours = self._table({"name": optimizer, "learning_rate": 0.1})
        theirs = tf_keras.layers.Embedding(10, 4)
        theirs.build(None)
        theirs.set_weights([self.start])
        keras = {
            "sgd": lambda: tf_keras.optimizers.SGD(0.1),
            "adagrad": lambda: tf_keras.optimizers.Adagrad(0.1, epsilon=0.0),
        }[optimizer]
        losses = [
            self._fit(make(table), keras(), **options) for table in (ours, theirs)
        ]
        self.assertAllClose(losses[0], losses[1], rtol=1e-4)
        keys, rows = ours.get_rows()
        self.assertAllEqual(keys, np.arange(10))
        self.assertAllClose(rows, theirs.get_weights()[0], rtol=1e-4, atol=1e-5)
        self.assertNotAllClose(rows, self.start)

    @parameterized.parameters(False, True)
    def test_trains_in_a_loop_of_its_users_own(self, in_graph):
        ours, fitted = (
            self._table({"name": "adagrad", "learning_rate": 0.1}) for _ in range(2)
        )
        self._fit(_functional(fitted))
        model, optimizer = _Subclassed(ours), tf_keras.optimizers.SGD(0.1)

        def step(inputs, labels):
            with tf.GradientTape() as tape:
                predictions = model(inputs, training=True)
                loss = tf.reduce_mean((predictions - labels) ** 2)
            weights = model.trainable_weights
            optimizer.apply_gradients(
                zip(tape.gradient(loss, weights), weights, strict=True)
            )

        model([x[:1] for x in self.inputs])
        if in_graph:
            step = tf.function(step)
        for _ in range(2):
            for part in (slice(0, 16), slice(16, 32)):
                step([tf.constant(x[part]) for x in self.inputs], self.labels[part])
        self.assertAllClose(ours.get_rows()[1], fitted.get_rows()[1], rtol=1e-4)
        self.assertNotAllClose(ours.get_rows()[1], self.start)

    def test_large_keys_stay_apart_in_a_sequential_model(self):
        keys = self.rng.integers(-(2**63), 2**63 - 1, size=(16, 1))
        keys = np.concatenate([keys, keys + 1, keys ^ (1 << 62), keys ^ -(2**63)], 1)
        labels = self.rng.normal(size=(16, 1)).astype("float32")
        table = mt.embedding.Embedding(2)
        model = _sequential(table)
        model.compile("sgd", "mse")
        model.fit(keys, labels, verbose=0)
        self.assertEqual(table.num_rows(), 64)
        self.assertAllEqual(table.get_rows()[0], np.sort(keys.ravel()))

    def test_a_second_build_keeps_the_rows(self):
        table = mt.embedding.Embedding(2)
        table.set_rows([7], [[1, 2]])
        table.build([None])
        self.assertAllEqual(table(tf.constant([7])), [[1, 2]])
        self.assertLen(table.trainable_variables, 1)

    def test_inference_makes_no_rows(self):
        table = mt.embedding.Embedding(2)
        model = _sequential(table)
        model.compile("sgd", "mse")
        keys = np.arange(8).reshape(4, 2)
        model.predict(keys, verbose=0)
        model.evaluate(keys, self.labels[:4], verbose=0)
        self.assertAllEqual(table(keys), np.zeros([4, 2, 2]))
        self.assertEqual(table.num_rows(), 0)
        model.fit(keys[:1], self.labels[:1], verbose=0)
        self.assertEqual(table.num_rows(), 2)
        self.assertNotAllClose(table(keys[0]), np.zeros([2, 2]))

    def test_a_frozen_layer_stays_as_it_is(self):
        table = self._table()
        table.trainable = False
        model = _functional(table)
        self.inputs[0] += 5  # Some keys are new.
        self._fit(model)
        keys, rows = table.get_rows()
        self.assertAllEqual(keys, np.arange(10))
        self.assertAllEqual(rows, self.start)

    def test_follows_a_schedule(self):
        rate = {"name": "piecewise", "boundaries": [1, 2], "values": [1.0, 0.0, 0.5]}
        table = self._table({"name": "sgd", "learning_rate": rate})
        for moved in (1.0, 1.0, 1.5, 2.0):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(table(tf.constant([3]), training=True))
            tape.gradient(loss, table.trainable_weights)
            self.assertAllClose(table.get_rows()[1][3], self.start[3] - moved)

    def test_clips_the_sum_of_a_rows_gradients(self):
        table = self._table({"name": "sgd", "learning_rate": 1.0}, clip_norm=1.0)
        with tf.GradientTape() as tape:
            rows = table(tf.constant([3, 3, 4]), training=True)
            loss = tf.reduce_sum(rows * tf.constant([[1.0], [1.0], [0.25]]))
        tape.gradient(loss, table.trainable_weights)
        moved = self.start - table.get_rows()[1]
        # The norms are 2 * 2 and 0.25 * 2.
        self.assertAllClose(moved[3:5], np.array([[2.0 / 4.0], [0.25]]) * np.ones(4))

    @parameterized.parameters("layer", "floatx")
    def test_fits_in_float64(self, how):
        if how == "floatx":
            self.addCleanup(tf_keras.backend.set_floatx, tf_keras.backend.floatx())
            tf_keras.backend.set_floatx("float64")
        start = {"name": "constant", "value": 2.0}
        table = mt.embedding.Embedding(
            1, start, {"name": "sgd", "learning_rate": 0.25}, dtype="float64"
        )
        model = tf_keras.Sequential([tf_keras.Input([1], dtype="int64"), table])
        model.compile("sgd", "mse")
        keys = np.array([[3], [4]])
        model.fit(keys, np.zeros([2, 1, 1]), batch_size=2, verbose=0)
        # Of the mean of two squares the gradient of each is its root, 2.
        self.assertAllEqual(table.get_rows()[1], [[1.5], [1.5]])
        self.assertEqual(model(keys).dtype, tf.float64)

    def test_penalises_each_row_of_a_call_once(self):
        regularizer = tf_keras.regularizers.L2(0.5)
        table = self._table(
            {"name": "sgd", "learning_rate": 1.0}, embeddings_regularizer=regularizer
        )
        with tf.GradientTape() as tape:
            table(tf.constant([3, 3, 4]), training=True)
            loss = tf.add_n(table.losses)
        self.assertAllClose(loss, 0.5 * np.sum(self.start[3:5] ** 2))
        tape.gradient(loss, table.trainable_weights)
        expected = self.start.copy()
        expected[3:5] = 0.0  # The gradient of half a square is the row itself.
        self.assertAllClose(table.get_rows()[1], expected, atol=1e-6)
        table(tf.constant([1]))
        self.assertAllClose(table.losses, [0.5 * np.sum(self.start[1] ** 2)])

    @parameterized.parameters("mixed_float16", "float32")
    def test_loss_scaling_does_not_reach_the_rows(self, dtype):
        """`float32`: only the other layers compute in half precision."""
        tf_keras.mixed_precision.set_global_policy("mixed_float16")
        # Values that half precision holds, so that one step can be worked out.
        self.start = np.round(self.start * 8) / 8
        table = self._table(dtype=dtype)
        self.assertEqual(
            table(tf.constant([1])).dtype, tf.as_dtype(table.compute_dtype)
        )
        model = _functional(table)
        optimizer = tf_keras.optimizers.SGD(0.1)
        optimizer = tf_keras.mixed_precision.LossScaleOptimizer(
            optimizer, dynamic=False, initial_scale=1024
        )
        model.compile(optimizer, "mse")
        predictions = model(self.inputs).numpy()
        model.fit(self.inputs, self.labels, batch_size=32, verbose=0)
        gradient = np.zeros([10, 4])
        error = 2.0 * (predictions - self.labels) / 32
        for ids, weight in zip(self.inputs, (1.0, 2.0), strict=True):
            for column in ids.T:
                np.add.at(gradient, column, weight * error)
        moved = self.start - table.get_rows()[1]
        self.assertAllClose(moved, 0.1 * gradient, rtol=0.01, atol=0.005)
        self.assertEmpty(model.losses)

    def test_a_step_that_is_not_finite_is_left_out_on_both_sides(self):
        tf_keras.mixed_precision.set_global_policy("mixed_float16")
        table = self._table()
        model = _functional(table)
        weights = model.layers[-1].get_weights()
        self._fit(model, scale=1e30)
        self.assertAllEqual(table.get_rows()[1], self.start)
        self.assertEqual(table.dropped_gradients(), 0)
        self.assertAllEqual(model.layers[-1].get_weights()[0], weights[0])
        self.assertEqual(model.optimizer.loss_scale, 2.0**15 / 2**4)
        self.assertTrue(np.isfinite(table.trainable_weights[0].numpy()))

    def test_counts_and_warns_of_row_gradients_that_are_not_finite(self):
        table = mt.embedding.Embedding(2, name="t", optimizer=_SGD)
        self.assertEqual(table.dropped_gradients(), 0)
        table.set_rows([1, 2, 3], np.ones([3, 2]))
        weights = table.get_weights()

        @tf.function
        def step(factors):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(table([1, 2, 3], training=True) * factors)
            tape.gradient(loss, table.trainable_variables)

        step([[1.0, 1.0], [np.nan, 1.0], [1.0, np.inf]])
        self.assertEqual(table.dropped_gradients(), 2)
        path = self.get_temp_dir() + "/rows"
        checkpoint = tf.train.Checkpoint(table=table)
        reads = (
            table.num_rows,
            table.get_rows,
            table.get_weights,
            lambda: checkpoint.write(path),
            lambda: tf_keras.Sequential([table]).save_weights(path + ".weights.h5"),
        )
        for number, read in enumerate(reads):
            with self.assertLogs("absl", "WARNING") as logs:
                read()
            (line,) = logs.output
            self.assertIn(f"`t` left out {2 + number} row gradients", line)
            with self.assertNoLogs("absl", "WARNING"):
                read()
            step([[0.0, 0.0], [0.0, 0.0], [0.0, np.nan]])
        self.assertAllClose(table.get_rows()[1], [[0.9, 0.9], [1, 1], [1, 1]])
        table.set_weights(weights)
        self.assertAllEqual(table.get_rows()[1], np.ones([3, 2]))
        self.assertEqual(table.dropped_gradients(), 7)

    def test_counts_what_fit_drops(self):
        table = self._table()
        self.labels[3] = np.nan
        self._fit(_functional(table))
        first, second = (
            np.unique(np.concatenate([x[part].ravel() for x in self.inputs]))
            for part in (slice(0, 16), slice(16, 32))
        )
        of_example = np.unique(np.concatenate([x[3] for x in self.inputs]))
        # After the first step the weights of the dense layer are not finite.
        expected = len(of_example) + len(second) + len(first) + len(second)
        self.assertEqual(table.dropped_gradients(), expected)
        self.assertTrue(np.isfinite(table.get_rows()[1]).all())

    def test_a_custom_loop_in_half_precision_needs_the_layers_losses(self):
        tf_keras.mixed_precision.set_global_policy("mixed_float16")
        model = _functional(self._table())
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(self.inputs, training=True)) * 1024.0
        with self.assertRaisesRegex(ValueError, r"Add `sum\(model.losses\)`"):
            tape.gradient(loss, model.trainable_weights)

    def test_refuses_a_second_gradient_of_one_step(self):
        table = self._table()
        with tf.GradientTape(persistent=True) as tape:
            loss = tf.reduce_sum(table(tf.constant([1]), training=True))
        tape.gradient(loss, table.trainable_weights)
        with self.assertRaisesRegex(tf.errors.InvalidArgumentError, "already"):
            tape.gradient(loss, table.trainable_weights)

    def test_strings(self):
        table = mt.embedding.Embedding(2, mask_zero=True)
        keys = tf.constant([["a", "b"], ["", "a"]])
        rows = table(keys, training=True).numpy()
        self.assertEqual(table.num_rows(), 3)
        self.assertAllEqual(rows[0, 0], rows[1, 1])
        self.assertAllEqual(table.compute_mask(keys), [[True, True], [False, True]])
        table.set_rows(["b", "c"], [[1.0, 2.0], [3.0, 4.0]])
        self.assertAllEqual(table(["c", "b", "d"]), [[3, 4], [1, 2], [0, 0]])
        with self.assertRaisesRegex(ValueError, "integers after strings"):
            table(tf.constant([1]))

    @parameterized.parameters("int8", "uint8", "int32", "uint32", "int64", "float32")
    def test_integers_of_any_type_are_the_same_keys(self, dtype):
        table = self._table()
        self.assertAllEqual(table(np.array([3, 7], dtype)), self.start[[3, 7]])

    def test_unsigned_keys_of_64_bits(self):
        table = mt.embedding.Embedding(1)
        keys = np.array([0, 2**63 - 1, 2**63, 2**64 - 1], np.uint64)
        table.set_rows(keys, [[1.0], [2.0], [3.0], [4.0]])
        self.assertAllEqual(table(keys)[:, 0], [1, 2, 3, 4])

    def test_keeps_the_form_of_its_input(self):
        table = self._table()
        ragged = tf.ragged.constant([[1, 2], [], [3]], dtype=tf.int64)
        outputs = table(ragged)
        self.assertAllEqual(outputs.row_lengths(), [2, 0, 1])
        self.assertAllEqual(outputs.flat_values, self.start[1:4])
        self.assertAllEqual(table(tf.constant(5)), self.start[5])
        self.assertEqual(table(tf.zeros([2, 0, 3], tf.int64)).shape, [2, 0, 3, 4])
        shape = table(tf_keras.Input([None, 2], dtype="int64")).shape
        self.assertAllEqual(shape, [None, None, 2, 4])

    def test_masks_and_input_length(self):
        table = mt.embedding.Embedding(2, mask_zero=True, input_length=3)
        keys = tf_keras.Input([None], dtype="int64")
        self.assertAllEqual(table(keys).shape, [None, 3, 2])
        self.assertAllEqual(table(keys)._keras_mask.shape, [None, None])
        mask = table(tf.constant([[1, 0, 2]]))._keras_mask
        self.assertAllEqual(mask, [[True, False, True]])
        self.assertIsNone(mt.embedding.Embedding(2).compute_mask(tf.constant([0])))
        with self.assertRaisesRegex(
            ValueError, r"`input_length` must agree .*\(1, 2\)"
        ):
            table(tf.constant([[1, 0]]))

    def test_seeds(self):
        def start(seed, name="table"):
            table = mt.embedding.Embedding(4, seed=seed, name=name)
            return table(tf.constant([1, 2]), training=True).numpy()

        self.assertAllEqual(start(1), start(1))
        self.assertNotAllClose(start(1), start(2))
        self.assertNotAllClose(start(1), start(1, "other"))
        self.assertNotAllClose(start(None), start(None))
        tf_keras.utils.set_random_seed(3)
        first = start(None)
        tf_keras.utils.set_random_seed(3)
        self.assertAllEqual(start(None), first)

    @parameterized.parameters(
        ({"dim": 0}, r"`dim` must be at least 1\. Received: dim=0"),
        ({"clip_norm": 0.0}, r"`clip_norm` must be .*clip_norm=0\.0"),
        ({"capacity": 0}, r"`capacity` must be at least 1\. Received: capacity=0\."),
        ({"optimizer": "adagrd"}, "`optimizer` must be .*'adagrd'"),
        ({"embeddings_initializer": "glorot_normal"}, "`embeddings_initializer` must"),
    )
    def test_rejects(self, wrong, message):
        with self.assertRaisesRegex(ValueError, message):
            mt.embedding.Embedding(**{"dim": 2} | wrong)

    @parameterized.parameters(
        ([1, 2], [[0.0] * 4], r"\[n\] and \[n, 4\]\..*\(2,\), rows of shape \(1, 4\)"),
        ([1, 1], [[0.0] * 4] * 2, r"`keys` must differ\. Received: 2 keys, 1 of them"),
    )
    def test_rejects_rows(self, keys, rows, message):
        with self.assertRaisesRegex(ValueError, message):
            mt.embedding.Embedding(4).set_rows(keys, rows)

    @parameterized.parameters(
        (np.nan, [4, 7], r"`items` must be .*nan at \[1, 0\], of key 7; 1 of 2 rows"),
        (-np.inf, [4, 2**64 - 1], r"-inf at \[1, 0\], of key 18446744073709551615;"),
        (1e300, ["a", "b"], r"inf at \[1, 0\], of key b'b'; .* Leave their keys out"),
    )
    def test_rejects_rows_that_are_not_finite(self, value, keys, message):
        table = mt.embedding.Embedding(2, name="items")
        if keys[1] == 2**64 - 1:
            keys = np.array(keys, np.uint64)
        with self.assertRaisesRegex(ValueError, message):
            table.set_rows(keys, [[1.0, 2.0], [value, value]])
        self.assertEqual(table.num_rows(), 0)

    def test_rejects_keys_that_a_float_does_not_hold(self):
        with self.assertRaisesRegex(tf.errors.InvalidArgumentError, "dtype='int64'"):
            self._table()(tf.constant([2.0**24]))

    def test_rejects_what_is_no_key(self):
        with self.assertRaisesRegex(TypeError, r"integers or strings.*dtype=bool"):
            self._table()(tf.constant([True]))

    def test_makes_room_beyond_its_capacity(self):
        table = mt.embedding.Embedding(2, capacity=2, name="small")
        table(tf.range(100), training=True)
        self.assertEqual(table.num_rows(), 100)

    def test_says_that_xla_cannot_compile_it(self):
        model = _functional(self._table())
        for run in (self._fit, lambda m, **_: m.predict(self.inputs, verbose=0)):
            with self.assertRaisesRegex(ValueError, "Compile the model with `jit_comp"):
                run(model, jit_compile=True)

    def test_says_that_it_runs_without_strategies(self):
        with (
            tf.distribute.MirroredStrategy(["CPU:0"]).scope(),
            self.assertRaisesRegex(ValueError, "Received: MirroredStrategy"),
        ):
            _functional(mt.embedding.Embedding(2))
        with tf.distribute.OneDeviceStrategy("CPU:0").scope():
            _functional(mt.embedding.Embedding(2))

    def test_training_must_be_known_while_tracing(self):
        table = self._table()

        @tf.function
        def call(training):
            return table(tf.constant([1]), training=training)

        with self.assertRaisesRegex(ValueError, "`training` must be known"):
            call(tf.constant(True))

    def test_the_documentation_runs_as_it_stands(self):
        docs = pathlib.Path(__file__).parents[3] / "docs" / "embedding.md"
        names = {}
        for block in re.findall(r"```python\n(.*?)```", docs.read_text(), re.DOTALL):
            exec(block, names)
        self.assertEqual(names["model"].output_shape, (None, 1))
        self.assertAllEqual(names["table"].get_rows()[0], [7, 8])
        self.assertEqual(names["rows"]["clicked"].shape, [2, 16])
