"""Tests of batch normalization against that of Keras."""

import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import testing
from monolith_tf.layers.batch_normalization import BatchNormalization

_OPTIONS = {"momentum": 0.8, "epsilon": 1e-3}


def _trained(layer, batches, upstreams):
    """Outputs and gradients of every batch, and the weights after the last one."""
    layer.build(batches[0].shape)
    dim = batches[0].shape[-1]
    layer.gamma.assign(np.linspace(0.5, 2.0, dim))
    layer.beta.assign(np.linspace(-1.0, 1.0, dim))

    @tf.function(reduce_retracing=True)
    def step(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        sources = [x, *layer.trainable_variables]
        found = y, *tape.gradient(y, sources, tf.cast(upstream, y.dtype))
        return [tf.cast(value, tf.float32) for value in found]

    found = [
        [value.numpy() for value in step(tf.constant(x), upstream)]
        for x, upstream in zip(batches, upstreams, strict=True)
    ]
    return found, layer.get_weights()


def _draw(*shape):
    rng = np.random.default_rng(7)
    batches, upstreams = rng.normal(3.0, 2.0, [2, *shape]).astype(np.float32)
    return list(batches), list(upstreams)


class BatchNormalizationTest(testing.TestCase, parameterized.TestCase):
    @parameterized.parameters(([3, 64, 5],), ([2, 1, 4],), ([2, 6, 3, 4],))
    def test_it_trains_like_the_layer_of_keras(self, shape):
        batches, upstreams = _draw(*shape)
        ours = _trained(BatchNormalization(**_OPTIONS), batches, upstreams)
        keras = _trained(
            tf_keras.layers.BatchNormalization(**_OPTIONS), batches, upstreams
        )
        self.assertAllClose(ours[0], keras[0], rtol=1e-4, atol=1e-4)
        self.assertAllClose(ours[1], keras[1], rtol=1e-5, atol=1e-5)

    @parameterized.parameters({"renorm": True}, {"dtype": "mixed_bfloat16"})
    def test_other_ways_are_those_of_keras(self, **options):
        batches, upstreams = _draw(2, 8, 3)
        ours = _trained(BatchNormalization(**options), batches, upstreams)
        keras = _trained(
            tf_keras.layers.BatchNormalization(**options), batches, upstreams
        )
        self.assertAllClose(ours[0], keras[0], rtol=1e-6, atol=1e-6)
        self.assertAllClose(ours[1], keras[1], rtol=1e-6, atol=1e-6)

    def test_layers_without_scale_or_shift_work(self):
        (batch, _), _ = _draw(2, 8, 3)
        for options in ({"scale": False}, {"center": False}):
            self.assertAllClose(
                BatchNormalization(**options)(batch, training=True),
                tf_keras.layers.BatchNormalization(**options)(batch, training=True),
                atol=1e-5,
            )

    def test_a_frozen_layer_uses_and_keeps_its_statistics(self):
        (batch, _), _ = _draw(2, 8, 3)
        layer = BatchNormalization(epsilon=0.0)
        layer.trainable = False
        self.assertAllClose(layer(batch, training=True), batch)
        self.assertAllClose(layer.moving_mean, np.zeros(3))

    def test_inference_uses_the_moving_statistics(self):
        layer = BatchNormalization(momentum=0.0, epsilon=0.0)
        layer(tf.constant([[1.0], [3.0]]), training=True)  # Mean 2, variance 1.
        self.assertAllClose(layer(tf.constant([[5.0]]), training=False), [[3.0]])

    def test_an_empty_batch_moves_nothing(self):
        layer = BatchNormalization()
        layer(tf.constant([[1.0], [3.0]]), training=True)
        before = layer.get_weights()
        self.assertEqual(layer(tf.zeros([0, 1]), training=True).shape, [0, 1])
        self.assertAllEqual(layer.get_weights(), before)

    def test_it_is_saved_with_a_model(self):
        model = tf_keras.Sequential([tf_keras.Input([3]), BatchNormalization()])
        path = self.get_temp_dir() + "/model.keras"
        model.save(path)
        self.assertIsInstance(
            tf_keras.models.load_model(path).layers[0], BatchNormalization
        )
