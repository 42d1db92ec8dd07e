import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing


def _sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def _expected(layer, queries, keys, mask):
    """DIEN with tanh, one row and one step at a time."""
    w = {v.name.split(":")[0].split("/", 1)[1]: v.numpy() for v in layer.weights}
    units = layer.num_units
    rows = []
    for q, row, valid in zip(queries, keys, mask, strict=True):
        h, interests = np.zeros(units), []
        for x in row[valid]:
            of_x = x @ w["gru_cell/kernel"] + w["gru_cell/bias"][0]
            of_h = h @ w["gru_cell/recurrent_kernel"] + w["gru_cell/bias"][1]
            z = _sigmoid(of_x[:units] + of_h[:units])
            r = _sigmoid(of_x[units : 2 * units] + of_h[units : 2 * units])
            c = np.tanh(of_x[2 * units :] + r * of_h[2 * units :])
            h = z * h + (1 - z) * c
            interests.append(h)
        logits = [g @ w["attention_weight"] @ q for g in interests]
        scores = np.exp(logits) / np.sum(np.exp(logits))
        h = np.zeros(units)
        for g, a in zip(interests, scores, strict=True):
            gates = np.concatenate([g, h]) @ w["agru_cell/gate_kernel"]
            gates = _sigmoid(gates + w["agru_cell/gate_bias"])
            r, z = gates[:units], gates[units:]
            c = np.concatenate([g, r * h]) @ w["agru_cell/candidate_kernel"]
            c = np.tanh(c + w["agru_cell/candidate_bias"])
            share = a if layer.att_type == "AGRU" else a * z
            h = (1 - share) * h + share * c
        rows.append(h)
    return rows


class DIENTest(testing.TestCase):
    def _inputs(self, batch=4, time=3, query_dim=2, dim=3):
        queries = self.rng.normal(size=(batch, query_dim)).astype("float32")
        return queries, self.rng.normal(size=(batch, time, dim)).astype("float32")

    def test_standard_behaviour(self):
        mask = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 0]], bool)
        # Kernel, recurrent kernel and bias; the cell's four; attention.
        self.run_layer_test(
            layers.DIEN(3, "AUGRU", activation="tanh"),
            inputs=list(self._inputs()),
            call_kwargs={"mask": mask},
            output_shape=(4, 3),
            num_weights=8,
        )

    def test_config(self):
        self.run_config_test(
            layers.DIEN,
            {
                "num_units": 2,
                "att_type": "AUGRU",
                "activation": "sigmoid",
                "initializer": "glorot_normal",
                "regularizer": "l2",
            },
        )

    @testing.golden_cases(__file__, "dien")
    def test_golden(self, case):
        self.run_golden_case(case, layers.DIEN)

    @parameterized.parameters("AGRU", "AUGRU")
    def test_matches_definition(self, att_type):
        queries, keys = self._inputs()
        mask = np.array([[1, 1, 1], [0, 1, 1], [1, 0, 0], [1, 0, 1]], bool)
        layer = layers.DIEN(4, att_type, activation=None)
        y = layer([queries, keys], mask=mask)
        self.assertAllClose(y, _expected(layer, queries, keys, mask))
        everything = np.ones_like(mask)
        y = layer([queries, keys])
        self.assertAllClose(y, _expected(layer, queries, keys, everything))

    def test_first_recurrence_is_the_gru_of_keras(self):
        _, keys = self._inputs()
        mask = np.array([[1, 1, 1], [0, 1, 1], [1, 0, 0], [1, 0, 1]], bool)
        layer = layers.DIEN(3)
        layer.build([[None, 2], [None, None, 3]])
        gru = tf_keras.layers.GRU(3, activation="relu", return_sequences=True)
        gru.build((None, None, 3))
        values = [w + 0.1 for w in layer.gru_cell.get_weights()]
        gru.set_weights(values)
        layer.gru_cell.set_weights(values)
        interests = tf.transpose(
            layer._interests(tf.constant(keys), tf.constant(mask)), [1, 0, 2]
        )
        # A first step that is masked leaves the zero start.
        self.assertAllClose(interests, gru(keys, mask=tf.constant(mask)))

    @parameterized.parameters("AGRU", "AUGRU")
    def test_a_masked_step_changes_nothing(self, att_type):
        queries, keys = self._inputs(time=5)
        mask = np.array([[True, True, True, False, False]] * 4)
        layer = layers.DIEN(2, att_type)
        expected = layer([queries, keys[:, :3]])
        self.assertAllClose(layer([queries, keys], mask=mask), expected)
        front = np.concatenate([keys[:, 3:], keys[:, :3]], axis=1)
        self.assertAllClose(layer([queries, front], mask=mask[:, ::-1]), expected)

    def test_ways_to_give_keys_and_mask(self):
        queries, keys = self._inputs()
        mask = np.array([[1.0, 1.0, 0.0]] * 4, "float32")
        layer = layers.DIEN(2)
        expected = layer([queries, keys], mask=mask)
        self.assertAllEqual(layer([queries, keys, mask]), expected)
        self.assertAllEqual(layer(queries, keys=keys, mask=mask > 0), expected)
        self.assertAllEqual(layer(queries, keys), layer([queries, keys]))
        symbols = [tf_keras.Input(x.shape[1:]) for x in (queries, keys, mask)]
        model = tf_keras.Model(symbols, layer(symbols))
        self.assertAllClose(model([queries, keys, mask]), expected)

    def test_ragged_keys(self):
        queries, keys = self._inputs()
        lengths = np.array([3, 0, 1, 2])
        layer = layers.DIEN(2)
        expected = layer([queries, keys], mask=np.arange(3) < lengths[:, None])
        ragged = tf.RaggedTensor.from_tensor(keys, lengths=lengths)
        self.assertAllClose(layer([queries, ragged]), expected)
        self.assertAllEqual(expected[1], [0.0, 0.0])

    def test_length_may_change_between_calls(self):
        queries, keys = self._inputs(time=4)
        layer = layers.DIEN(2)
        call = tf.function(
            lambda q, k: layer([q, k]),
            input_signature=[
                tf.TensorSpec([None, 2]),
                tf.TensorSpec([None, None, 3]),
            ],
        )
        for time in (4, 1):
            y = call(queries, keys[:, :time])
            self.assertAllClose(y, layer([queries, keys[:, :time]]))
        self.assertAllEqual(call(queries, keys[:, :0]), np.zeros([4, 2]))

    @parameterized.parameters(False, True)
    def test_no_steps_give_zero(self, jit_compile):
        queries, keys = self._inputs(time=0)
        layer = layers.DIEN(2)
        call = tf.function(lambda q, k: layer([q, k]), jit_compile=jit_compile)
        self.assertAllEqual(call(queries, keys), np.zeros([4, 2]))

    def test_keras_mask(self):
        queries, keys = self._inputs()
        keys[:, 2] = 0.0
        layer = layers.DIEN(2)
        y = layer([queries, tf_keras.layers.Masking()(keys)])
        self.assertAllClose(y, layer([queries, keys[:, :2]]))
        self.assertIsNone(getattr(y, "_keras_mask", None))

    def test_state_is_precise_under_mixed_precision(self):
        queries, keys = self._inputs()
        layer = layers.DIEN(2, dtype="mixed_bfloat16")
        self.assertEqual(layer([queries, keys]).dtype, tf.bfloat16)
        interests = layer._interests(tf.cast(keys, tf.bfloat16), None)
        self.assertEqual(interests.dtype, tf.float32)

    def test_a_seeded_initializer_repeats_the_whole_layer(self):
        initializer = tf_keras.initializers.HeUniform(seed=5)
        twins = [layers.DIEN(2, initializer=initializer) for _ in range(2)]
        for layer in twins:
            layer.build([[None, 2], [None, 3, 2]])
        for first, second in zip(*(layer.weights for layer in twins), strict=True):
            self.assertAllEqual(first, second, first.name)
        recurrent = twins[0].gru_cell.recurrent_kernel.numpy()  # [2, 6]
        self.assertAllClose(recurrent @ recurrent.T, np.eye(2), atol=1e-6)

    def test_a_slope_is_not_the_cells(self):
        # Keras files, also of 0.1.0, hold it once, as the layer's.
        layer = layers.DIEN(2, activation="prelu")
        layer(list(self._inputs()))
        self.assertLen(layer.gru_cell.variables, 3)
        self.assertLen(layer.activation.variables, 1)

    def test_regularizer_sees_kernels(self):
        layer = layers.DIEN(2, regularizer=tf_keras.regularizers.L2(0.5))
        layer(list(self._inputs()))
        names = ("gru_cell/kernel", "gate_kernel", "candidate_kernel", "ion_weight")
        kernels = [w for w in layer.weights if w.name.split(":")[0].endswith(names)]
        self.assertLen(kernels, 4)
        expected = [0.5 * np.sum(w.numpy() ** 2) for w in kernels]
        self.assertAllClose(sorted(layer.losses), sorted(expected))

    def test_rejects_units_below_one(self):
        with self.assertRaisesRegex(ValueError, r"`num_units` must be .*num_units=0\."):
            layers.DIEN(0)

    def test_rejects_an_unknown_type(self):
        with self.assertRaisesRegex(ValueError, "one of AGRU, AUGRU.*att_type='LSTM'"):
            layers.DIEN(2, "LSTM")

    def test_rejects_a_single_tensor(self):
        with self.assertRaisesRegex(ValueError, r"must be `\[queries, keys\]` of"):
            layers.DIEN(2)(tf.ones([2, 3]))

    def test_rejects_an_unknown_width(self):
        with self.assertRaisesRegex(ValueError, "`keys` must have a known size"):
            layers.DIEN(2).build([[None, 2], [None, 3, None]])
        with self.assertRaisesRegex(ValueError, "`queries` must have a known size"):
            layers.DIEN(2).build([[None, None], [None, 3, 2]])

    def test_rejects_two_masks(self):
        queries, keys = self._inputs()
        mask = np.ones([4, 3], "float32")
        with self.assertRaisesRegex(ValueError, "has a mask as its third element"):
            layers.DIEN(2)([queries, keys, mask], mask=mask)

    def test_rejects_a_mask_of_ragged_keys(self):
        queries, keys = self._inputs()
        ragged = tf.RaggedTensor.from_tensor(keys)
        with self.assertRaisesRegex(ValueError, "`mask` must be None when `keys` is"):
            layers.DIEN(2)([queries, ragged], mask=np.ones([4, 3]))

    def test_rejects_integer_input(self):
        with self.assertRaisesRegex(TypeError, r"`inputs` must be floating point"):
            layers.DIEN(2)([np.ones([2, 4], "int32"), np.ones([2, 3, 4], "int32")])
