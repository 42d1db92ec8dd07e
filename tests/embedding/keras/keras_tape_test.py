"""Tests of when the Keras layer makes rows and trains them."""

import threading

import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

import monolith_tf as mt
from monolith_tf import testing

_SGD = {"name": "sgd", "learning_rate": 0.5}
_KEYS = tf.constant([7, 7, 9], tf.int64)


def _table(**options):
    return mt.embedding.Embedding(
        2, {"name": "constant", "value": 1.0}, _SGD, name="table", **options
    )


def _run_in_threads(work):
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class TapeTest(testing.TestCase):
    """Row 7 is read twice and row 9 once; each value's gradient is 1, its rate 1/2."""

    def setUp(self):
        super().setUp()
        self.table = _table()
        self.table.build(None)

    def _loss(self, **training):
        return tf.reduce_sum(self.table(_KEYS, **training))

    def _rows(self):
        keys, rows = self.table.get_rows()
        return dict(zip(keys.tolist(), rows[:, 0].tolist(), strict=True))

    @parameterized.product(in_function=[False, True], training=[None, True])
    def test_a_recorded_call_trains_as_in_keras(self, in_function, training):
        def step():
            with tf.GradientTape() as tape:
                loss = self._loss(training=training)
            return loss, tape.gradient(loss, self.table.trainable_weights)

        loss, _ = (tf.function(step, autograph=False) if in_function else step)()
        self.assertEqual(loss, 6.0)
        self.assertEqual(self._rows(), {7: 0.0, 9: 0.5})

    @parameterized.parameters(False, True)
    def test_no_tape_or_training_false_is_inference(self, in_function):
        def without_tape():
            return self._loss()

        def not_training():
            with tf.GradientTape() as tape:
                loss = self._loss(training=False)
            tape.gradient(loss, self.table.trainable_weights)
            return loss

        def unwatched():
            with tf.GradientTape(watch_accessed_variables=False):
                return self._loss()

        for call in (without_tape, not_training, unwatched):
            call = tf.function(call, autograph=False) if in_function else call
            self.assertEqual(call(), 0.0)
        self.assertEqual(self._rows(), {})

    def test_a_tape_that_watches_the_weights_only_trains(self):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.table.trainable_weights)
            loss = self._loss()
        tape.gradient(loss, self.table.trainable_weights)
        self.assertEqual(self._rows(), {7: 0.0, 9: 0.5})

    def test_a_function_traced_without_a_tape_makes_rows_with_their_gradient(self):
        forward = tf.function(self._loss, autograph=False)
        self.assertEqual(forward(), 0.0)
        self.assertEqual(self._rows(), {})
        with tf.GradientTape() as tape:
            loss = forward()
        tape.gradient(loss, self.table.trainable_weights)
        self.assertEqual(self._rows(), {7: 0.0, 9: 0.5})
        self.assertEqual(forward(), 1.0 * 0.5 * 2)
        self.assertEqual(self._rows(), {7: 0.0, 9: 0.5})

    @parameterized.product(in_function=[False, True], training=[None, True])
    def test_a_gradient_that_does_not_ask_for_the_layer_trains_nothing(
        self, in_function, training
    ):
        bias = tf.Variable(3.0)

        def step():
            with tf.GradientTape() as tape:
                loss = self._loss(training=training) * bias
            return tape.gradient(loss, bias)

        gradient = (tf.function(step, autograph=False) if in_function else step)()
        self.assertEqual(gradient, 6.0)
        self.assertEqual(self._rows(), {7: 1.0, 9: 1.0})

    def test_a_persistent_tape_is_asked_for_the_layer_once(self):
        bias = tf.Variable(1.0)
        with tf.GradientTape(persistent=True) as tape:
            loss = self._loss() * bias
        for _ in range(2):
            self.assertEqual(tape.gradient(loss, bias), 6.0)
        tape.gradient(loss, self.table.trainable_weights)
        self.assertEqual(tape.gradient(loss, bias), 6.0)
        self.assertEqual(self._rows(), {7: 0.0, 9: 0.5})
        with self.assertRaisesRegex(tf.errors.InvalidArgumentError, "already"):
            tape.gradient(loss, self.table.trainable_weights)

    @parameterized.product(
        asks=[False, True], training=[None, True], in_function=[False, True]
    )
    def test_recomputed_calls_train_once(self, asks, training, in_function):
        bias = tf.Variable(1.0)
        recomputed = tf.recompute_grad(lambda: self._loss(training=training) * bias)

        def step():
            with tf.GradientTape() as tape:
                loss = recomputed()
            sources = [bias, *(self.table.trainable_weights if asks else ())]
            return loss, tape.gradient(loss, sources)[0]

        loss, gradient = (tf.function(step, autograph=False) if in_function else step)()
        self.assertEqual([loss, gradient], [6.0, 6.0])
        expected = {7: 0.0, 9: 0.5} if asks else {7: 1.0, 9: 1.0}
        self.assertEqual(self._rows(), expected)

    def test_recomputed_calls_without_a_tape_that_records_are_inference(self):
        recomputed = tf.recompute_grad(self._loss)
        self.assertEqual(recomputed(), 0.0)
        with tf.GradientTape(watch_accessed_variables=False):
            self.assertEqual(recomputed(), 0.0)
        with tf.GradientTape() as tape, tape.stop_recording():
            self.assertEqual(recomputed(), 0.0)
        self.assertEqual(self._rows(), {})

    @parameterized.parameters(False, True)
    def test_a_gradient_of_the_rows_gradient_is_refused(self, in_function):
        weights = self.table.trainable_weights

        def step():
            with tf.GradientTape() as outer:
                with tf.GradientTape() as inner:
                    loss = tf.reduce_sum(self.table(_KEYS) ** 3)
                (gradient,) = inner.gradient(loss, weights)
                penalty = loss + gradient**2
            return outer.gradient(penalty, weights)

        with self.assertRaisesRegex(NotImplementedError, "first-order gradients only"):
            (tf.function(step, autograph=False) if in_function else step)()

    @parameterized.parameters(False, True)
    def test_other_tapes_may_record_a_gradient(self, in_function):
        bias = tf.Variable(3.0)

        def step():
            with tf.GradientTape() as outer:
                with tf.GradientTape() as inner:
                    loss = self._loss() * bias**2 / 9.0
                own, of_bias = inner.gradient(loss, [*self.table.weights[:1], bias])
            return own, of_bias, outer.gradient(of_bias, bias)

        own, of_bias, second = (
            tf.function(step, autograph=False) if in_function else step
        )()
        # 6 b^2 / 9: its derivatives are 12 b / 9 and 12 / 9.
        self.assertAllClose([own, of_bias, second], [0.0, 4.0, 4.0 / 3.0])
        self.assertEqual(self._rows(), {7: 0.0, 9: 0.5})

    def test_a_penalty_on_the_gradient_of_the_layers_output(self):
        def loss_of(layer):
            rows = layer(_KEYS)
            with tf.GradientTape() as inner:
                inner.watch(rows)
                cubes = tf.reduce_sum(rows**3)
            return 0.01 * tf.reduce_sum(inner.gradient(cubes, rows) ** 2)

        keras = tf_keras.layers.Embedding(10, 2, embeddings_initializer="ones")
        with tf.GradientTape(persistent=True) as outer:
            losses = [loss_of(layer) for layer in (self.table, keras)]
        outer.gradient(losses[0], self.table.trainable_weights)
        dense = outer.gradient(losses[1], keras.embeddings)
        expected = (keras.embeddings - 0.5 * tf.convert_to_tensor(dense)).numpy()
        self.assertAllClose(
            self._rows(), {7: expected[7, 0], 9: expected[9, 0]}, rtol=1e-5
        )

    def test_learns_as_keras_does_without_a_word_of_training(self):
        ours, theirs = [], []
        keras = tf_keras.layers.Embedding(10, 2, embeddings_initializer="ones")
        for layer, losses in ((self.table, ours), (keras, theirs)):
            model = tf_keras.Sequential([layer, tf_keras.layers.Lambda(tf.square)])
            optimizer = tf_keras.optimizers.SGD(0.5)
            for _ in range(4):
                with tf.GradientTape() as tape:
                    loss = tf.reduce_sum(0.1 * model(_KEYS[tf.newaxis]))
                weights = model.trainable_weights
                gradients = tape.gradient(loss, weights)
                optimizer.apply_gradients(zip(gradients, weights, strict=True))
                losses.append(float(loss))
        self.assertAllClose(ours, theirs)
        self.assertLess(ours[-1], ours[0])

    @parameterized.parameters(False, True)
    def test_steps_of_several_threads_are_all_counted(self, in_function):
        def step():
            with tf.GradientTape() as tape:
                # Two calls of one step.
                loss = self._loss() + 2.0 * self._loss()
            tape.gradient(loss, self.table.trainable_weights)

        step()
        before = self._rows()
        call = tf.function(step, autograph=False) if in_function else step
        errors = []

        def train():
            try:
                for _ in range(20):
                    call()
            except Exception as error:
                errors.append(error)

        _run_in_threads(train)
        self.assertEmpty(errors)
        moved = {key: before[key] - value for key, value in self._rows().items()}
        self.assertEqual(moved, {7: 80 * 3.0, 9: 80 * 1.5})
        self.assertEqual(self.table._step, 81)

    @parameterized.parameters("embedding", "shared")
    def test_first_calls_of_several_threads_share_one_table(self, kind):
        for _ in range(4):
            if kind == "shared":
                tables = [{"name": "item", "output_dim": 2, "optimizer": _SGD}]
                tables[0]["embeddings_initializer"] = {"name": "constant", "value": 1.0}
                layer = mt.embedding.SharedEmbedding(tables, {"id": "item"})
                table = layer.embeddings["item"]
            else:
                layer = table = _table()
            barrier, errors = threading.Barrier(4), []

            def train(layer=layer, barrier=barrier, errors=errors, kind=kind):
                try:
                    barrier.wait()
                    with tf.GradientTape() as tape:
                        keys = {"id": _KEYS} if kind == "shared" else _KEYS
                        found = layer(keys, training=True)
                        found = found["id"] if kind == "shared" else found
                        loss = tf.reduce_sum(found)
                    tape.gradient(loss, layer.trainable_weights)
                except Exception as error:
                    errors.append(error)

            _run_in_threads(train)
            self.assertEmpty(errors)
            keys, rows = table.get_rows()
            self.assertEqual(keys.tolist(), [7, 9])
            # Four steps at a rate of 1/2; key 7 is there twice.
            self.assertAllEqual(rows, [[-3.0, -3.0], [-1.0, -1.0]])
            self.assertLen(layer.weights, 3)  # Anchor, step, rows.


class FloatKeysTest(testing.TestCase):
    @parameterized.parameters(
        ("bfloat16", 255, 256),
        ("float16", 2047, 2048),
        ("float32", 2**24 - 1, 2**24),
        ("float64", 2**53 - 1, 2**53),
    )
    def test_floats_that_may_be_several_integers_are_refused(self, dtype, good, bad):
        table = _table()
        table(tf.cast([good], dtype), training=True)
        self.assertEqual(table.get_rows()[0].tolist(), [good])
        for value in (bad, -bad, float("nan"), float("inf"), 0.5):
            with self.assertRaisesRegex(
                tf.errors.InvalidArgumentError,
                rf"`table` came as {dtype}, and must then be whole numbers below 2\^",
            ):
                table(tf.cast(np.array([1, value]), dtype))
