import numpy as np
import tf_keras
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing


def _reference(x0, weights, activation):
    """Returns the pooled maps; `weights` in turn a kernel and a bias."""
    x, pooled = x0, []
    for i in range(0, len(weights), 2):
        kernel = weights[i].reshape(x.shape[1], x0.shape[1], -1)
        x = np.einsum("hjo,bhd,bjd->bod", kernel, x, x0) + weights[i + 1][:, None]
        x = activation(x) if i + 2 < len(weights) else x
        pooled.append(x.sum(-1))
    return np.concatenate(pooled, -1)


class CINTest(testing.TestCase):
    def test_standard_behaviour(self):
        self.run_layer_test(
            layers.CIN([4, 2], activation="prelu"),
            input_shape=(5, 3, 2),
            output_shape=(5, 6),
            num_weights=5,
        )

    def test_standard_behaviour_of_the_fused_form(self):
        self.run_layer_test(
            layers.CIN([4, 3, 2], activation="relu", fused=True),
            input_shape=(5, 3, 2),
            output_shape=(5, 9),
            num_weights=6,
        )

    def test_config(self):
        common = {
            "activation": "sigmoid2",
            "initializer": "he_normal",
            "regularizer": "l2",
            "fused": False,
        }
        self.run_config_test(
            layers.CIN,
            common | {"hidden_uints": (3, 2)},
            common | {"hidden_units": [3]},
        )

    @testing.golden_cases(__file__, "cin")
    def test_golden(self, case):
        self.run_golden_case(case, layers.CIN)

    @parameterized.parameters((None, [2, 3, 4]), ("tanh", [2, 3, 4]), ("tanh", [3]))
    def test_matches_definition(self, activation, units):
        layer = layers.CIN(units, activation=activation)
        layer.build([None, 3, 2])
        weights = [
            self.rng.normal(size=weight.shape).astype("float32")
            for weight in layer.get_weights()
        ]
        layer.set_weights(weights)
        function = np.tanh if activation else lambda x: x
        for batch in (5, 1, 0, 3):
            x = self.rng.normal(size=(batch, 3, 2)).astype("float32")
            self.assertAllClose(
                layer(x), _reference(x, weights, function), rtol=1e-5, atol=1e-5
            )

    @parameterized.parameters("auto", True, False)
    def test_forms_have_the_same_values(self, fused):
        x = self.rng.normal(size=(5, 3, 2)).astype("float32")
        layer = layers.CIN([4, 2], activation="relu", fused=fused)
        y = layer(x)
        expected = _reference(x, layer.get_weights(), lambda x: np.maximum(x, 0))
        self.assertAllClose(y, expected, rtol=1e-5, atol=1e-5)

    def test_works_with_one_field_of_width_one(self):
        # 2 * x * x + 1 with x = 3 and 0.5
        layer = layers.CIN([1])
        layer.build([None, 1, 1])
        layer.set_weights([np.array([[2.0]]), np.array([1.0])])
        self.assertAllClose(layer(np.array([[[3.0]], [[0.5]]])), [[19.0], [1.5]])

    def test_kernels_are_matrices_that_start_apart(self):
        layer = layers.CIN(
            [3, 3, 3], initializer=tf_keras.initializers.HeNormal(seed=7)
        )
        layer.build([None, 3, 2])
        kernels = [kernel.numpy() for kernel in layer.kernels]
        self.assertEqual([k.shape for k in kernels], [(9, 3)] * 3)
        self.assertNotAllEqual(kernels[0], kernels[1])

    def test_penalizes_kernels_alone(self):
        layer = layers.CIN([3, 2], regularizer="l2")
        layer.build([None, 3, 2])
        self.assertAllClose(
            layer.losses, [0.01 * np.sum(k.numpy() ** 2) for k in layer.kernels]
        )

    def test_output_shape(self):
        layer = layers.CIN([3, 2])
        self.assertEqual(layer.compute_output_shape((None, 4, 5)), [None, 5])

    @parameterized.parameters((None, None), ([2], [2]))
    def test_rejects_both_spellings_or_none(self, uints, units):
        with self.assertRaisesRegex(ValueError, "Exactly one of .* must be set"):
            layers.CIN(uints, hidden_units=units)

    @parameterized.parameters("hidden_uints", "hidden_units")
    def test_rejects_no_layer_and_widths_below_one(self, name):
        with self.assertRaisesRegex(ValueError, rf"`{name}` must be a non-empty list"):
            layers.CIN(**{name: []})
        with self.assertRaisesRegex(ValueError, rf"`{name}` must be .*{name}=0\."):
            layers.CIN(**{name: [2, 0]})

    def test_rejects_an_unknown_form(self):
        with self.assertRaisesRegex(ValueError, r"`fused` must be .*fused='yes'\."):
            layers.CIN([2], fused="yes")

    def test_rejects_integer_input(self):
        with self.assertRaisesRegex(TypeError, r"floating point.*dtype=int32\."):
            layers.CIN([2])(np.ones([2, 4, 3], "int32"))

    @parameterized.parameters(([None, None, 3], 1), ([None, 4, None], 2))
    def test_rejects_an_unknown_size(self, shape, axis):
        with self.assertRaisesRegex(ValueError, f"known size on axis {axis}"):
            layers.CIN([2]).build(shape)

    def test_rejects_another_rank(self):
        with self.assertRaisesRegex(ValueError, "expected ndim=3, found ndim=2"):
            layers.CIN([2])(np.ones([2, 4]))
