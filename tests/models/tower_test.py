"""Tests of the hidden layers that models share."""

import numpy as np
import tensorflow as tf

from monolith_tf.models import tower


def test_layers_are_dense_normalized_rectified():
    x = tf.random.stateless_normal([64, 6], seed=[5, 6])
    layers = tower.hidden([5])
    y = layers(x, training=True)
    (kernel,) = (v for v in layers.weights if "kernel" in v.name)
    product = x.numpy() @ kernel.numpy()
    scaled = (product - product.mean(0)) / np.sqrt(product.var(0) + 1e-5)
    np.testing.assert_allclose(y, np.maximum(scaled, 0), rtol=1e-4, atol=1e-4)


def test_layers_without_batch_normalization_have_biases():
    layers = tower.hidden([5, 4], batch_norm=False)
    layers(tf.ones([2, 6]))
    names = [v.name.split("/", 1)[1] for v in layers.weights]
    assert names == [f"dense_{i}/{w}:0" for i in (0, 1) for w in ("kernel", "bias")]


def test_no_layers_return_their_input():
    x = tf.ones([2, 6])
    np.testing.assert_array_equal(tower.hidden([])(x), x)
