import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing


class FeatureCrossTest(testing.TestCase):
    def test_standard_behaviour(self):
        layer = layers.FeatureCross(diag_scale=0.5, pre_activation="tanh")
        self.run_layer_test(
            layer,
            input_shape=((3, 2, 4), (3, 2, 4)),
            output_shape=(3, 2, 4),
            num_weights=2,
        )

    def test_standard_behaviour_with_one_input(self):
        layer = layers.FeatureCross(projection_dim=2)
        self.run_layer_test(
            layer, input_shape=(3, 4), output_shape=(3, 4), num_weights=3
        )

    def test_config(self):
        self.run_config_test(
            layers.FeatureCross,
            {
                "projection_dim": 2,
                "diag_scale": 0.5,
                "use_bias": False,
                "pre_activation": "relu",
                "kernel_initializer": "he_normal",
                "bias_initializer": "ones",
                "kernel_regularizer": "l2",
                "bias_regularizer": "l1",
            },
        )

    @testing.golden_cases(__file__, "feature_cross")
    def test_golden(self, case):
        self.run_golden_case(case, layers.FeatureCross)

    @parameterized.named_parameters(
        ("other_input", 0.0, [[0.55, 0.8, 1.05]]),
        ("diagonal", 1.0, [[0.59, 0.9, 1.23]]),
    )
    def test_known_values(self, diag_scale, expected):
        layer = layers.FeatureCross(diag_scale=diag_scale, kernel_initializer="ones")
        x0, x = tf.constant([[0.1, 0.2, 0.3]]), tf.constant([[0.4, 0.5, 0.6]])
        self.assertAllClose(layer(x0, x), expected)

    def test_x_defaults_to_x0(self):
        layer = layers.FeatureCross(diag_scale=None, kernel_initializer="ones")
        y = layer(tf.constant([[0.1, 0.2, 0.3]]))
        self.assertAllClose(y, [[0.16, 0.32, 0.48]])

    def test_matches_definition(self):
        x0, x = self.rng.normal(size=(2, 5, 3, 6)).astype("float32")
        layer = layers.FeatureCross(2, 0.25, pre_activation="sigmoid")
        y = layer(x0, x)
        layer.bias.assign(self.rng.normal(size=6))
        y = layer(x0, x)
        down, kernel = layer.down_kernel.numpy(), layer.kernel.numpy()
        hidden = 1 / (1 + np.exp(-(x @ down @ kernel + layer.bias.numpy())))
        self.assertAllClose(y, x0 * (hidden + 0.25 * x) + x)

    def test_layers_stack_in_a_functional_model(self):
        x0 = tf_keras.Input([4])
        x1 = layers.FeatureCross()(x0, x0)
        model = tf_keras.Model(x0, layers.FeatureCross()(x0, x1))
        self.assertEqual(model(tf.ones([2, 4])).shape, (2, 4))
        self.assertLen(model.trainable_weights, 4)

    def test_passes_a_mask_on(self):
        x = tf_keras.layers.Masking()(tf.constant([[[1.0, 1.0], [0.0, 0.0]]]))
        self.assertAllEqual(layers.FeatureCross()(x)._keras_mask, [[True, False]])

    def test_kernels_start_different(self):
        initializer = tf_keras.initializers.RandomNormal(seed=1)
        layer = layers.FeatureCross(4, kernel_initializer=initializer)
        with self.assertWarns(UserWarning):
            layer.build([None, 4])
        self.assertNotAllClose(layer.down_kernel, layer.kernel)

    def test_warns_of_a_projection_that_saves_nothing(self):
        with self.assertWarnsRegex(UserWarning, "projection_dim=3, width=4"):
            layers.FeatureCross(3).build([None, 4])

    def test_rejects_arguments_out_of_range(self):
        with self.assertRaisesRegex(ValueError, r"projection_dim=0\."):
            layers.FeatureCross(projection_dim=0)
        with self.assertRaisesRegex(ValueError, r"diag_scale=-1\.0\."):
            layers.FeatureCross(diag_scale=-1.0)

    def test_rejects_inputs_of_two_shapes(self):
        with self.assertRaisesRegex(ValueError, r"x0\.shape=\(2, 3\), x\.shape=\(2, 4"):
            layers.FeatureCross()(tf.ones([2, 3]), tf.ones([2, 4]))

    def test_rejects_integer_input(self):
        with self.assertRaisesRegex(TypeError, r"floating point.*dtype=int32\."):
            layers.FeatureCross()(np.ones([2, 3], "int32"))
