"""Tests of `Tower`."""

import numpy as np
import tensorflow as tf
import tf_keras

from monolith_tf.models import tower


def test_a_tower_is_dense_normalized_rectified():
    x = tf.random.stateless_normal([64, 6], seed=[5, 6])
    layers = tower.Tower([5])
    y = layers(x, training=True)
    (kernel,) = (v for v in layers.weights if "kernel" in v.name)
    product = x.numpy() @ kernel.numpy()
    scaled = (product - product.mean(0)) / np.sqrt(product.var(0) + 1e-5)
    np.testing.assert_allclose(y, np.maximum(scaled, 0), rtol=1e-4, atol=1e-4)


def test_a_tower_without_batch_normalization_keeps_its_biases():
    layers = tower.Tower([5, 4], batch_norm=False)
    layers(tf.ones([2, 6]))
    kinds = [type(layer) for layer in layers.submodules]
    assert kinds.count(tf_keras.layers.Dense) == 2
    assert sum("bias" in v.name for v in layers.weights) == 2
