"""Tests of what Keras expects of every layer."""

import inspect

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from monolith_tf import layers
from monolith_tf.layers import batch_normalization
from monolith_tf.testing import nests
from tests.layers.parameter_servers_test import CASES

_CASES = pytest.mark.parametrize(
    "example", [case[1] for case in CASES], ids=[case[0] for case in CASES]
)


def _inputs(shape, dtype="float32"):
    """Returns the positional arguments of a call."""
    rng = np.random.default_rng(0)
    drawn = nests.map_shapes(lambda s: tf.constant(rng.normal(size=s), dtype), shape)
    return drawn if isinstance(drawn, tuple) else (drawn,)


def _copied(layer, **arguments):
    return type(layer).from_config(layer.get_config() | arguments)


@_CASES
def test_a_call_that_says_nothing_does_not_train(example):
    layer, shape = example()
    inputs = _inputs(shape)
    if "training" not in inspect.signature(layer.call).parameters:
        pytest.skip("trains and infers alike")
    layer(*inputs)
    for weight in layer.weights:  # Statistics that differ from those of the batch.
        weight.assign(tf.cast(tf.fill(weight.shape, 0.5), weight.dtype))
    before = [weight.numpy() for weight in layer.weights]
    outputs, expected = layer(*inputs), layer(*inputs, training=False)
    for found, wanted in zip(
        tf.nest.flatten(outputs), tf.nest.flatten(expected), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


@_CASES
def test_an_activity_regularizer_is_kept(example):
    plain, _ = example()
    layer = _copied(plain, activity_regularizer=tf_keras.regularizers.L2(0.25))
    twin = _copied(layer)
    assert twin.activity_regularizer.get_config() == {"l2": 0.25}
    assert plain.activity_regularizer is None
    assert "activity_regularizer" not in plain.get_config()


@_CASES
def test_float64_works(example):
    plain, shape = example()
    layer = _copied(plain, dtype="float64")
    for output in tf.nest.flatten(layer(*_inputs(shape, "float64"))):
        assert output.dtype == tf.float64
        assert np.all(np.isfinite(output))


@_CASES
def test_what_works_step_by_step_passes_a_mask_on(example):
    layer, shape = example()
    if not isinstance(shape[0], int):
        pytest.skip("takes several inputs")
    steps = tf.random.stateless_normal([2, 4, shape[-1]], seed=[1, 2])
    if len(shape) == 3:
        steps = steps[..., tf.newaxis, :] if shape[1] == 1 else steps[:, : shape[1]]
    try:
        outputs = layer(steps)
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        pytest.skip(f"takes no sequences: {error}")
    if not tf.is_tensor(outputs) or outputs.shape[:2] != steps.shape[:2]:
        pytest.skip("gives no sequence")
    other = tf.concat([steps[:, :1], steps[:, 1:] + 1.0], axis=1)
    if np.any(layer(other)[:, 0] != outputs[:, 0]):
        pytest.skip("mixes the steps")
    masked = tf_keras.layers.Masking()(tf.where(steps > 100.0, 0.0, steps))
    assert layer(masked)._keras_mask is masked._keras_mask


@pytest.mark.parametrize(
    ("make", "width"),
    [
        (lambda: layers.DIN([2, 1], "relu"), 2),
        (lambda: layers.DIN([2, 1], "relu", mode="steps"), 2),
        (lambda: layers.DMR_U2I(2), 3),
        (lambda: layers.DIEN(2), 2),
    ],
    ids=["din", "din_steps", "dmr_u2i", "dien"],
)
def test_what_a_masked_step_holds_does_not_leak(make, width):
    layer = make()
    query = tf.Variable(tf.random.stateless_normal([4, width], seed=[1, 2]))
    keys = tf.random.stateless_normal([4, 3, 2], seed=[3, 4])
    mask = tf.constant([[True, True, False]] * 4)
    found = []
    for padding in (0.0, float("nan")):
        padded = tf.where(mask[:, :, tf.newaxis], keys, padding)
        with tf.GradientTape() as tape:
            outputs = layer([query, padded], mask=mask)
            loss = tf.reduce_sum(outputs**2)
        variables = [query, *layer.trainable_variables]
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, variables)]
        found.append([outputs, *gradients])
    for clean, with_nan in zip(*found, strict=True):
        assert np.all(np.isfinite(with_nan))
        np.testing.assert_array_equal(clean, with_nan)


@pytest.mark.parametrize("shape", [[None, 3], [None, 2, 3]], ids=["matrix", "rank_3"])
@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
@pytest.mark.parametrize("renorm", [False, True], ids=["plain", "renorm"])
def test_an_empty_batch_moves_no_statistics(shape, dtype, renorm):
    layer = batch_normalization.BatchNormalization(dtype=dtype, renorm=renorm)
    call = tf.function(
        lambda x: layer(x, training=True), input_signature=[tf.TensorSpec(shape)]
    )
    call(tf.random.stateless_normal([4, *shape[1:]], seed=[1, 2]))
    before = [weight.numpy() for weight in layer.weights]
    assert call(tf.zeros([0, *shape[1:]])).shape == [0, *shape[1:]]
    layer(tf.zeros([0, *shape[1:]]), training=True)
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_a_frozen_batch_norm_infers():
    layer = layers.BatchNorm(trainable=False)
    x = tf.constant([[1.0], [3.0]])
    np.testing.assert_array_equal(layer(x, training=True), layer(x, training=False))
    np.testing.assert_array_equal(layer.moving_mean, [0.0])


def test_partitioners_that_cannot_be_saved_are_refused():
    with pytest.raises(TypeError, match=r"`tf.compat.v1`.*FixedShardsPartitioner"):
        layers.Dense(2, partitioner=tf.compat.v1.fixed_size_partitioner(2))


def test_logits_and_rates_may_be_variables():
    logits, rates = tf.Variable([0.0, 1.0]), tf.Variable([0.5, 0.25])
    layer = layers.LogitCorrection()
    expected = [np.log(2.0), 1.0 + np.log(4.0)]
    np.testing.assert_allclose(layer([logits, rates]), expected, rtol=1e-6)
    np.testing.assert_allclose(layers.LogitCorrection()(logits), [0.0, 1.0])


def test_top_k_of_params_is_topk():
    params = layers.MMoE.params()
    params.num_tasks, params.expert_output_dims = 1, [[2], [2]]
    params.gate_type, params.top_k = "topk", 2
    assert params.instantiate().topk == 2


def test_arguments_of_a_lhuc_tower_are_in_the_order_of_the_original():
    layer = layers.LHUCTower([2], None, "relu", None, False, False, False, "l2", "l1")
    config = layer.get_config()
    switches = ["use_bias", "use_weight_norm", "use_learnable_weight_norm"]
    assert not any(config[name] for name in switches)
    assert config["kernel_regularizer"]["class_name"] == "L2"
    assert config["bias_regularizer"]["class_name"] == "L1"
