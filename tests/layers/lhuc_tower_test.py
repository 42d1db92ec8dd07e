import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing

_BATCH_NORM = "the moments of an empty batch are not numbers in Keras' own"
_SHARED = {
    "initializers": ["he_normal"],
    "kernel_regularizer": "l2",
    "use_weight_norm": False,
    "use_learnable_weight_norm": False,
    "use_bias": False,
    "bias_regularizer": "l1",
    "enable_batch_normalization": True,
    "batch_normalization_momentum": 0.5,
    "batch_normalization_renorm": True,
    "batch_normalization_renorm_clipping": {"rmax": 2.0, "dmax": 1.0},
    "batch_normalization_renorm_momentum": 0.75,
}


def _sigmoid2(x):
    return 2.0 / (1.0 + np.exp(-x))


class LHUCTowerTest(testing.TestCase):
    def _inputs(self, batch=5, dim=3, gate_dim=2):
        x = self.rng.normal(size=(batch, dim)).astype("float32")
        return [x, self.rng.normal(size=(batch, gate_dim)).astype("float32")]

    def test_standard_behaviour(self):
        # Kernel, norm and bias of two layers and of two gates of two layers each.
        self.run_layer_test(
            layers.LHUCTower([4, 2], lhuc_output_dims=[3]),
            inputs=self._inputs(),
            output_shape=(5, 2),
            num_weights=3 * 2 + 3 * 2 * 2,
        )

    def test_passes_the_mask_of_the_dense_input_on(self):
        steps = tf_keras.layers.Masking()(tf.constant([[[1.0, 2.0], [0.0, 0.0]]]))
        gate = tf_keras.layers.Masking()(tf.ones([1, 2, 2]))
        layer = layers.LHUCTower([3])
        for inputs in (steps, [steps, gate]):
            self.assertAllEqual(layer(inputs)._keras_mask, [[True, False]])

    def test_normalizes_steps_of_sequences(self):
        # One step after the other is what a batch of so many rows is.
        x, gate_input = self._inputs(batch=6)
        options = {"enable_batch_normalization": True, "activations": "tanh"}
        layer = layers.LHUCTower([4, 2], **options)
        twin = layers.LHUCTower.from_config(layer.get_config())
        steps = [np.reshape(one, [2, 3, -1]) for one in (x, gate_input)]
        layer(steps), twin([x, gate_input])
        twin.set_weights(layer.get_weights())
        outputs = layer(steps, training=True)
        expected = twin([x, gate_input], training=True)
        self.assertAllClose(tf.reshape(outputs, [6, 2]), expected, atol=1e-5)
        for mine, wanted in zip(layer.weights, twin.weights, strict=True):
            self.assertAllClose(mine, wanted, atol=1e-5)

    def test_standard_behaviour_with_batch_norm(self):
        layer = layers.LHUCTower(
            [4, 2],
            activations=["tanh", "prelu"],
            enable_batch_normalization=True,
            use_weight_norm=False,
            lhuc_use_bias=False,
        )
        # Two layers of kernel and bias, a slope, two gates of a kernel; four weights of
        # the norm of the input, of the first layer, and of each gate's input.
        self.run_layer_test(
            layer,
            inputs=self._inputs(),
            output_shape=(5, 2),
            num_weights=2 * 2 + 1 + 2 + 4 * 4,
            skip={"empty_training": _BATCH_NORM},
        )

    def test_config(self):
        self.run_config_test(
            layers.LHUCTower,
            {
                "output_dims": [3, 2],
                "lhuc_output_dims": [[4, 3], [2]],
                "activations": ["tanh", "sigmoid2"],
                **_SHARED,
                **{f"lhuc_{name}": value for name, value in _SHARED.items()},
            },
        )

    def test_config_keeps_what_the_gates_override(self):
        layer = layers.LHUCTower(
            [3, 2],
            kernel_regularizer="l2",
            lhuc_kernel_regularizer=None,
            lhuc_use_bias=False,
        )
        twin = layers.LHUCTower.from_config(layer.get_config())
        for one in (layer, twin):
            one(self._inputs())
            self.assertLen(one.losses, 2)  # not of the gates
            self.assertFalse(one.gates[0].use_bias)
            self.assertTrue(one.tower[0].use_bias)
            self.assertEqual(one.get_config()["lhuc_use_weight_norm"], "same")

    def test_automatic_biases_are_where_no_batch_normalization_follows(self):
        layer = layers.LHUCTower(
            [3, 2],
            lhuc_output_dims=[4],
            use_bias="auto",
            enable_batch_normalization=True,
        )
        self.assertEqual([one.use_bias for one in layer.tower], [False, True])
        dense = [p for p in layer.gates[0].stack if isinstance(p, layers.Dense)]
        self.assertEqual([one.use_bias for one in dense], [False, True])

    @testing.golden_cases(__file__, "lhuc_tower")
    def test_golden(self, case):
        self.run_golden_case(case, layers.LHUCTower)

    def test_matches_definition(self):
        x, gate_input = self._inputs()
        layer = layers.LHUCTower([4, 2], lhuc_output_dims=[3], activations="tanh")
        y = layer([x, gate_input])
        for i, last in enumerate((np.tanh, lambda v: v)):
            # A kernel's norms start as those of its columns, so that both cancel.
            first, second = [d.kernel.numpy() for d in layer.gates[i].stack[::2]]
            gate = _sigmoid2(np.maximum(gate_input @ first, 0.0) @ second)
            x = last(x @ layer.tower[i].kernel.numpy()) * gate
        self.assertAllClose(y, x)

    def test_batch_norm_in_the_tower_alone(self):
        x, gate_input = self._inputs(batch=8)
        layer = layers.LHUCTower(
            [4, 2],
            enable_batch_normalization=True,
            lhuc_enable_batch_normalization=False,
            use_bias=False,
        )
        y = layer([x, gate_input], training=True)

        def normalized(v):
            return (v - v.mean(0)) / np.sqrt(v.var(0) + 1e-3)

        gates = [_sigmoid2(gate_input @ g.stack[0].kernel.numpy()) for g in layer.gates]
        kernels = [d.kernel.numpy() for d in layer.tower]
        hidden = np.maximum(normalized(normalized(x) @ kernels[0]), 0.0) * gates[0]
        self.assertAllClose(y, (hidden @ kernels[1]) * gates[1])

    def test_initializers_of_gates_follow_their_layer(self):
        layer = layers.LHUCTower([3, 2], initializers=["zeros", "ones"])
        layer(self._inputs())
        for i, value in enumerate((0.0, 1.0)):
            for dense in (layer.tower[i], layer.gates[i].stack[0]):
                kernel = dense.kernel.numpy()
                self.assertAllEqual(kernel, np.full(kernel.shape, value))

    def test_a_seeded_initializer_gives_every_kernel_its_own_numbers(self):
        initializer = tf_keras.initializers.RandomNormal(seed=3)
        layer = layers.LHUCTower(
            [3, 3, 3], lhuc_output_dims=[3, 3], initializers=initializer
        )
        layer(self._inputs(gate_dim=3))
        kernels = [w for w in layer.weights if w.name.split(":")[0].endswith("/kernel")]
        self.assertLen(kernels, 12)
        self.assertLen({float(kernel.numpy()[0, 0]) for kernel in kernels}, 12)

    @parameterized.parameters(
        (None, [[3], [2]]), ([4], [[4, 3], [4, 2]]), ([[3], [5, 2]], [[3], [5, 2]])
    )
    def test_widths_of_gates(self, given, expected):
        layer = layers.LHUCTower([3, 2], lhuc_output_dims=given)
        self.assertEqual([gate.output_dims for gate in layer.gates], expected)

    @parameterized.parameters(([[3]],), ([[3], [4]],), ([],), (3,))
    def test_rejects_widths_of_gates_that_do_not_fit(self, given):
        with self.assertRaisesRegex(ValueError, r"`lhuc_output_dims` must .*Received:"):
            layers.LHUCTower([3, 2], lhuc_output_dims=given)

    def test_rejects_widths_below_one(self):
        with self.assertRaisesRegex(ValueError, r"`output_dims` must be .*=0\."):
            layers.LHUCTower([3, 0])
        with self.assertRaisesRegex(ValueError, r"`lhuc_output_dims` must be .*=0\."):
            layers.LHUCTower([3], lhuc_output_dims=[0])
        with self.assertRaisesRegex(ValueError, r"`output_dims` must be a non-empty"):
            layers.LHUCTower([])

    def test_rejects_lists_of_the_wrong_length(self):
        with self.assertRaisesRegex(ValueError, "`activations` must have one entry"):
            layers.LHUCTower([3, 2], activations=["relu"])
        with self.assertRaisesRegex(ValueError, "`initializers` must not have more"):
            layers.LHUCTower([3], initializers=["zeros", "zeros"])

    def test_rejects_unknown_arguments_of_gates(self):
        with self.assertRaisesRegex(TypeError, "lhuc_activations"):
            layers.LHUCTower([3], lhuc_activations="relu")

    def test_rejects_three_inputs(self):
        with self.assertRaisesRegex(ValueError, r"one tensor, or `\[dense_input, "):
            layers.LHUCTower([3])([tf.ones([2, 3])] * 3)

    def test_rejects_an_unknown_width(self):
        for shapes, name in (
            ([[None, None], [None, 2]], "dense_input"),
            ([[None, 2], [None, None]], "lhuc_input"),
        ):
            with self.assertRaisesRegex(ValueError, f"`{name}` must have a known size"):
                layers.LHUCTower([3]).build(shapes)

    def test_rejects_integer_input(self):
        with self.assertRaisesRegex(TypeError, r"`inputs` must be floating point"):
            layers.LHUCTower([3])(np.ones([2, 3], "int32"))
