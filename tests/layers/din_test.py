import numpy as np
import tensorflow as tf
import tf_keras

from monolith_tf import layers
from monolith_tf import testing


class DINTest(testing.TestCase):
    def _inputs(self, batch=4, time=3, dim=2):
        queries = self.rng.normal(size=(batch, dim)).astype("float32")
        keys = self.rng.normal(size=(batch, time, dim)).astype("float32")
        return queries, keys

    def test_standard_behaviour(self):
        # Two dense layers of kernel, norm and bias, and a slope.
        self.run_layer_test(
            layers.DIN([3, 1], activation="prelu", decay=True),
            inputs=list(self._inputs()),
            call_kwargs={"mask": np.array([[1, 1, 0]] * 4, "bool")},
            output_shape=(4, 2),
            num_weights=7,
        )

    def test_standard_behaviour_of_a_sequence(self):
        self.run_layer_test(
            layers.DIN([2, 1], activation="tanh", mode="sequence"),
            input_shape=[(4, 2), (4, 3, 2)],
            output_shape=(4, 3, 2),
            num_weights=6,
        )

    def test_config(self):
        self.run_config_test(
            layers.DIN,
            {
                "hidden_units": [2, 1],
                "activation": "relu",
                "initializer": "he_normal",
                "regularizer": "l2",
                "mode": "sequence",
                "decay": True,
            },
        )

    @testing.golden_cases(__file__, "din")
    def test_golden(self, case):
        self.run_golden_case(case, layers.DIN)

    def test_matches_definition(self):
        queries, keys = self._inputs()
        mask = np.array([[1, 1, 1], [0, 1, 0], [0, 0, 0], [1, 0, 1]], bool)
        layer = layers.DIN([3, 1], activation="tanh", decay=True)
        y = layer([queries, keys], mask=mask)
        # A kernel's norms start as those of its columns, so that both cancel.
        w0, w1 = [w.numpy() for w in layer.weights if w.name.endswith("/kernel:0")]
        expected = np.zeros([4, 2])
        for b in range(4):
            for t in range(3):
                q, k = queries[b], keys[b, t]
                hidden = np.tanh(np.concatenate([q, k, q - k, q * k]) @ w0)
                expected[b] += mask[b, t] * (hidden @ w1)[0] / np.sqrt(2.0) * k
        self.assertAllClose(y, expected)

    def test_a_masked_step_changes_nothing(self):
        queries, keys = self._inputs(time=5)
        mask = np.array([[True, True, True, False, False]] * 4)
        layer = layers.DIN([3, 1], activation="relu")
        expected = layer([queries, keys[:, :3]])
        self.assertAllClose(layer([queries, keys], mask=mask), expected)
        numbers = [[1.0, 2.0, 1.5, 0.5, 0.0]] * 4
        self.assertAllClose(layer([queries, keys], mask=numbers), expected)

    def test_ragged_keys(self):
        queries, keys = self._inputs()
        lengths = np.array([3, 0, 1, 2])
        ragged = tf.RaggedTensor.from_tensor(keys, lengths=lengths)
        mask = np.arange(3) < lengths[:, None]
        for mode in ("sum", "sequence"):
            layer = layers.DIN([3, 1], activation="relu", mode=mode)
            expected = layer([queries, keys], mask=mask)
            self.assertAllClose(layer([queries, ragged]), expected)

    def test_no_steps_give_zero(self):
        layer = layers.DIN([3, 1])
        y = layer([np.ones([2, 4], "float32"), np.ones([2, 0, 4], "float32")])
        self.assertAllEqual(y, np.zeros([2, 4]))

    def test_length_may_change_between_calls(self):
        queries, keys = self._inputs(time=4)
        layer = layers.DIN([3, 1], activation="relu")
        call = tf.function(
            lambda q, k: layer([q, k]),
            input_signature=[
                tf.TensorSpec([None, 2]),
                tf.TensorSpec([None, None, 2]),
            ],
        )
        for time in (4, 0, 1):
            y = call(queries, keys[:, :time])
            self.assertAllClose(y, layer([queries, keys[:, :time]]))

    def test_keras_masks(self):
        queries, keys = self._inputs()
        keys[:, 2] = 0.0
        masked = tf_keras.layers.Masking()(keys)
        layer = layers.DIN([3, 1], activation="relu")
        y = layer([queries, masked])
        self.assertAllClose(y, layer([queries, keys[:, :2]]))
        self.assertIsNone(getattr(y, "_keras_mask", None))
        sequence = layers.DIN([3, 1], mode="sequence")([queries, masked])
        self.assertAllEqual(sequence._keras_mask, [[True, True, False]] * 4)

    def test_starts_of_two_layers_differ(self):
        inputs = list(self._inputs())
        first, second = layers.DIN([3, 1]), layers.DIN([3, 1])
        self.assertNotAllClose(first(inputs), second(inputs))

    def test_regularizer_sees_every_kernel(self):
        layer = layers.DIN([3, 1], regularizer=tf_keras.regularizers.L2(0.5))
        layer(list(self._inputs()))
        kernels = [w for w in layer.weights if w.name.endswith("/kernel:0")]
        self.assertLen(kernels, 2)
        expected = [0.5 * np.sum(w.numpy() ** 2) for w in kernels]
        self.assertAllClose(sorted(layer.losses), sorted(expected))

    def test_rejects_a_last_width_other_than_one(self):
        with self.assertRaisesRegex(ValueError, r"end in 1.*=\[4, 2\]\."):
            layers.DIN([4, 2])

    def test_rejects_no_widths(self):
        with self.assertRaisesRegex(ValueError, r"`hidden_units` must be a non-empty"):
            layers.DIN([])

    def test_rejects_different_widths(self):
        with self.assertRaisesRegex(ValueError, r"same width\. Received: .*\(2, 4\)"):
            layers.DIN([1])([tf.ones([2, 4]), tf.ones([2, 3, 5])])

    def test_rejects_other_inputs_than_a_query_and_a_sequence(self):
        for inputs in (tf.ones([2, 3]), [tf.ones([2, 3]), tf.ones([2, 3])]):
            with self.assertRaisesRegex(ValueError, r"must be `\[queries, keys\]` of"):
                layers.DIN([1])(inputs)

    def test_rejects_an_unknown_width(self):
        with self.assertRaisesRegex(ValueError, "`queries` must have a known size"):
            layers.DIN([1]).build([[None, None], [None, 3, None]])

    def test_rejects_a_mask_of_ragged_keys(self):
        ragged = tf.RaggedTensor.from_tensor(tf.ones([2, 3, 4]))
        layer = layers.DIN([1])
        with self.assertRaisesRegex(ValueError, "`mask` must be None when `keys` is"):
            layer([tf.ones([2, 4]), ragged], mask=tf.ones([2, 3]))

    def test_rejects_integer_input(self):
        with self.assertRaisesRegex(TypeError, r"`inputs` must be floating point"):
            layers.DIN([1])([np.ones([2, 4], "int32"), np.ones([2, 3, 4], "int32")])
