import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing

_DEFINITIONS = (
    ("sum", layers.SumPooling, np.sum),
    ("avg", layers.AvgPooling, np.mean),
    ("max", layers.MaxPooling, np.max),
)


class PoolingTest(testing.TestCase):
    @parameterized.named_parameters(*_DEFINITIONS)
    def test_standard_behaviour(self, cls, definition):
        del definition
        self.run_layer_test(
            cls(), input_shape=[(4, 2)] * 3, output_shape=(4, 2), num_weights=0
        )
        self.run_config_test(cls, {})

    @testing.golden_cases(__file__, "pooling")
    def test_golden(self, case):
        self.run_golden_case(case, getattr(layers, case.data["layer_class"]))

    @parameterized.named_parameters(*_DEFINITIONS)
    def test_matches_definition(self, cls, definition):
        features = self.rng.normal(size=(4, 3, 2)).astype("float32")
        expected = definition(features, axis=0)
        self.assertAllClose(cls()(list(features)), expected)
        self.assertAllClose(cls()(tuple(features)), expected)

    @parameterized.named_parameters(*_DEFINITIONS)
    def test_passes_on_what_all_masks_keep(self, cls, definition):
        del definition
        keys = ([[1, 2, 0]], [[0, 3, 0]])
        embedding = tf_keras.layers.Embedding(4, 2, mask_zero=True)
        both = [embedding(tf.constant(one)) for one in keys]
        self.assertAllEqual(cls()(both)._keras_mask, [[False, True, False]])
        one = [both[0], tf.ones([1, 3, 2])]
        self.assertAllEqual(cls()(one)._keras_mask, [[True, True, False]])
        self.assertIsNone(getattr(cls()([tf.ones([1, 3, 2])]), "_keras_mask", None))

    def test_gradient_of_the_maximum_is_shared_by_all_that_reach_it(self):
        x = [tf.constant(row) for row in ([[1.0, 5.0]], [[3.0, 5.0]], [[2.0, 0.0]])]
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layers.MaxPooling()(x)
        gradients = tape.gradient(y, x, output_gradients=tf.constant([[4.0, 6.0]]))
        self.assertAllEqual(tf.stack(gradients)[:, 0], [[0, 3], [4, 3], [0, 0]])

    def test_rejects_input(self):
        x = tf.ones([2, 3])
        with self.assertRaisesRegex(TypeError, "must be a list .*type EagerTensor"):
            layers.SumPooling()(x)
        with self.assertRaisesRegex(TypeError, "must be a list .*type NoneType"):
            layers.MaxPooling()(None)
        with self.assertRaisesRegex(
            ValueError, r"at least one tensor\. Received: inputs=\[\]\."
        ):
            layers.AvgPooling()([])
        with self.assertRaisesRegex(ValueError, r"same shape.*'\(2, 3\)', '\(2, 1\)'"):
            layers.SumPooling()([x, x[:, :1]])
        with self.assertRaisesRegex(TypeError, r"floating point.*dtype=int32\."):
            layers.SumPooling()([tf.ones([2], tf.int32)])
