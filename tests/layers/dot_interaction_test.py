import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing


class DotInteractionTest(testing.TestCase):
    @parameterized.named_parameters(
        ("pairs", {}, 3),
        ("self", {"self_interaction": True}, 6),
        ("all", {"skip_gather": True}, 9),
    )
    def test_standard_behaviour(self, config, width):
        layer = layers.DotInteraction(**config)
        self.run_layer_test(
            layer, input_shape=[(4, 5)] * 3, output_shape=(4, width), num_weights=0
        )
        shape = layer.compute_output_shape([(None, 5)] * 3)
        self.assertEqual(shape.as_list(), [None, width])

    def test_config(self):
        self.run_config_test(
            layers.DotInteraction, {"self_interaction": True, "skip_gather": True}
        )

    @testing.golden_cases(__file__, "dot_interaction")
    def test_golden(self, case):
        self.run_golden_case(case, layers.DotInteraction)

    @parameterized.product(self_interaction=(False, True), skip_gather=(False, True))
    def test_matches_definition(self, self_interaction, skip_gather):
        features = self.rng.normal(size=(4, 3, 2)).astype("float32")
        layer = layers.DotInteraction(self_interaction, skip_gather)
        columns = []
        for i in range(4):
            for j in range(4):
                product = (features[i] * features[j]).sum(axis=1)
                taken = j < i or (j == i and self_interaction)
                if taken or skip_gather:
                    columns.append(product if taken else 0 * product)
        self.assertAllClose(layer(list(features)), np.stack(columns, axis=1))

    @parameterized.parameters(False, True)
    def test_gradients_match_differences(self, self_interaction):
        features = [tf.constant(x) for x in self.rng.normal(size=(3, 2, 2))]
        layer = layers.DotInteraction(self_interaction, dtype="float64")

        def first(*features):
            with tf.GradientTape() as tape:
                tape.watch(features)
                total = tf.reduce_sum(layer(list(features)) ** 3)
            return tape.gradient(total, features[1])

        for function in (lambda *x: layer(list(x)), first):
            theory, numbers = tf.test.compute_gradient(function, features, delta=1e-6)
            for one, two in zip(theory, numbers, strict=True):
                self.assertAllClose(one, two, rtol=1e-6, atol=1e-6)

    def test_one_feature_has_no_pair(self):
        self.assertEqual(layers.DotInteraction()([tf.ones([3, 2])]).shape, (3, 0))

    @parameterized.named_parameters(
        ("tensor", np.ones([2, 3], "float32"), "must be a list"),
        ("rank", [np.ones([2, 3, 1], "float32")], r"rank 2.*\['\(2, 3, 1\)'\]"),
        (
            "shapes",
            [np.ones([2, 3], "float32"), np.ones([2, 4], "float32")],
            r"same shape.*\['\(2, 3\)', '\(2, 4\)'\]",
        ),
    )
    def test_rejects_input(self, inputs, message):
        with self.assertRaisesRegex(ValueError, message):
            layers.DotInteraction()(inputs)

    def test_rejects_integer_input(self):
        with self.assertRaisesRegex(TypeError, r"floating point.*dtype=int32\."):
            layers.DotInteraction()([np.ones([2, 3], "int32")])
