import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing


def _sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


class _OneOutput(layers.AGRUCell):
    """Returns the state once, as the golden cases have it."""

    def call(self, inputs):
        return super().call(inputs)[0]


class AGRUCellTest(testing.TestCase):
    def _inputs(self, batch=4, dim=2, units=3):
        shapes = [(batch, dim), (batch, units)]
        x, h = [self.rng.normal(size=s).astype("float32") for s in shapes]
        return x, h, self.rng.uniform(size=(batch, 1)).astype("float32")

    @parameterized.parameters("AGRU", "augru")
    def test_standard_behaviour(self, att_type):
        self.run_layer_test(
            layers.AGRUCell(3, att_type, activation="prelu"),
            inputs=list(self._inputs()),
            output_shape=((4, 3), (4, 3)),
            num_weights=5,
        )

    def test_config(self):
        self.run_config_test(
            layers.AGRUCell,
            {
                "units": 2,
                "att_type": "AUGRU",
                "activation": "relu",
                "initializer": "glorot_normal",
                "regularizer": "l2",
            },
        )

    @testing.golden_cases(__file__, "agru_cell")
    def test_golden(self, case):
        self.run_golden_case(case, _OneOutput)

    @parameterized.parameters("AGRU", "AUGRU", None)
    def test_matches_definition(self, att_type):
        x, h, a = self._inputs()
        cell = layers.AGRUCell(3, att_type or "AUGRU", initializer="glorot_uniform")
        output, state = cell([x, h] if att_type is None else [x, h, a])
        gate_kernel, gate_bias, kernel, bias = [w.numpy() for w in cell.weights]
        gates = _sigmoid(np.concatenate([x, h], 1) @ gate_kernel + gate_bias)
        r, z = gates[:, :3], gates[:, 3:]
        c = np.tanh(np.concatenate([x, r * h], 1) @ kernel + bias)
        share = {"AGRU": a, "AUGRU": a * z, None: z}[att_type]
        self.assertAllClose(state, (1 - share) * h + share * c)
        self.assertAllEqual(output, state)

    @parameterized.parameters("AGRU", "AUGRU")
    def test_a_score_of_zero_keeps_the_state(self, att_type):
        x, h, a = self._inputs()
        cell = layers.AGRUCell(3, att_type)
        self.assertAllEqual(cell([x, h, 0.0 * a])[1], h)

    def test_augru_with_a_score_of_one_is_the_plain_cell(self):
        x, h, a = self._inputs()
        cell = layers.AGRUCell(3, "AUGRU")
        self.assertAllClose(cell([x, h, a / a])[1], cell([x, h])[1])

    def test_starts(self):
        cell = layers.AGRUCell(3)
        cell(list(self._inputs()))
        self.assertAllEqual(cell.gate_bias, np.ones(6))
        self.assertAllEqual(cell.candidate_bias, np.zeros(3))
        # he_normal cuts at two deviations of sqrt(2 / 5), widened by 1 / 0.8796.
        limit = 2 * np.sqrt(2 / 5) / 0.87962566103423978
        self.assertLess(np.abs(cell.gate_kernel.numpy()).max(), limit)
        self.assertEqual((cell.state_size, cell.output_size), (3, 3))

    def test_a_seeded_initializer_gives_every_kernel_its_own_numbers(self):
        initializer = tf_keras.initializers.RandomUniform(seed=5)
        cells = [layers.AGRUCell(2, initializer=initializer) for _ in range(2)]
        for cell in cells:
            cell([tf.ones([1, 3]), tf.ones([1, 2])])
        first, second = cells
        self.assertAllEqual(first.gate_kernel, second.gate_kernel)
        start = first.gate_kernel.numpy().flat[:10]
        self.assertNotAllEqual(first.candidate_kernel.numpy().flat[:10], start)

    def test_regularizer_sees_both_kernels(self):
        cell = layers.AGRUCell(2, regularizer=tf_keras.regularizers.L2(0.5))
        cell([tf.ones([1, 3]), tf.ones([1, 2])])
        kernels = [cell.gate_kernel.numpy(), cell.candidate_kernel.numpy()]
        self.assertAllClose(cell.losses, [0.5 * np.sum(k**2) for k in kernels])

    def test_rejects_units_below_one(self):
        with self.assertRaisesRegex(ValueError, r"`units` must be .*units=0\."):
            layers.AGRUCell(0)

    @parameterized.parameters("GRU", None)
    def test_rejects_an_unknown_type(self, att_type):
        with self.assertRaisesRegex(ValueError, "one of AGRU, AUGRU.*att_type="):
            layers.AGRUCell(2, att_type)

    def test_rejects_a_single_tensor(self):
        with self.assertRaisesRegex(ValueError, r"`inputs` must be `\[x, state\]` or"):
            layers.AGRUCell(2)(tf.ones([2, 3]))

    @parameterized.parameters(((2, 4), (2, 1)), ((2, 2), (2, 2)), ((2, 2), (2,)))
    def test_rejects_shapes_that_do_not_fit(self, state, score):
        with self.assertRaisesRegex(ValueError, r"the shapes .*\[batch, 2\].*\(2, 3\)"):
            layers.AGRUCell(2)([tf.ones([2, 3]), tf.ones(state), tf.ones(score)])

    def test_rejects_an_unknown_width(self):
        with self.assertRaisesRegex(ValueError, "`x` must have a known size"):
            layers.AGRUCell(2).build([[None, None], [None, 2]])

    def test_rejects_integer_input(self):
        x, h = np.ones([2, 3], "int32"), np.ones([2, 2], "int32")
        with self.assertRaisesRegex(TypeError, r"`inputs` must be floating point"):
            layers.AGRUCell(2)([x, h])
