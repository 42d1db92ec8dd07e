"""Every layer reads its weights from the one variable of an export."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from monolith_tf.export import flat_dense
from monolith_tf.layers.functional import forms
from monolith_tf.testing import nests
from tests.layers.parameter_servers_test import CASES

_MIXED = dict.fromkeys(("MLP", "BatchNorm", "DIN", "lstm"), ("mixed_bfloat16",))


def _layers():
    """Yields a name, a layer of each class, and its inputs."""
    own = {"lstm": (tf_keras.layers.LSTM(3), (2, 4, 3))}
    examples = [(name, *example()) for name, example in CASES]
    examples += [(name, *example) for name, example in own.items()]
    for name, layer, shape in examples:
        for policy in ("float32", *_MIXED.get(name, ())):
            made = layer if policy == "float32" else _copied(layer, policy)
            rng = np.random.default_rng(0)
            inputs = nests.map_shapes(
                lambda s, rng=rng: tf.constant(rng.normal(size=s), tf.float32), shape
            )
            inputs = inputs if isinstance(inputs, tuple) else (inputs,)
            yield f"{name}_{policy}".lower(), made, inputs


def _copied(layer, policy):
    return type(layer).from_config({**layer.get_config(), "dtype": policy})


@pytest.mark.slow
def test_every_layer_reads_its_part_of_the_vector(tmp_path):
    root = tf.Module()
    root.layers, given = [], {}
    for name, layer, inputs in _layers():
        layer(*inputs)
        for seed, weight in enumerate(layer.weights):
            drawn = tf.random.stateless_uniform(weight.shape, [seed, 1], 0.1, 0.9)
            if weight.dtype.is_floating:
                weight.assign(tf.cast(drawn, weight.dtype))
        root.layers.append(layer)
        given[name] = layer, inputs
    root.flat = flat_dense.FlatDense(root)
    traced, expected = {}, {}
    for name, (layer, inputs) in given.items():
        flat_inputs = tf.nest.flatten(inputs)

        def answer(layer=layer, inputs=inputs, **tensors):
            # Sorted names are not in the order of more than ten inputs.
            count = len(tensors)
            packed = tf.nest.pack_sequence_as(
                inputs, [tensors[f"x{number}"] for number in range(count)]
            )
            with forms.exporting():
                outputs = tf.nest.flatten(layer(*packed, training=False))
            return {f"y{number}": value for number, value in enumerate(outputs)}

        names = {f"x{number}": value for number, value in enumerate(flat_inputs)}
        specs = {n: tf.TensorSpec(v.shape, v.dtype, n) for n, v in names.items()}
        traced[name] = root.flat.traced(name, answer, specs)
        expected[name] = tf.function(answer)(**names)
    own = {id(weight.handle) for layer, _ in given.values() for weight in layer.weights}
    held = [t for f in traced.values() for t in f.captured_inputs]
    assert own
    assert not own & {id(tensor) for tensor in held}
    saved = tf.Module()
    saved.flat = root.flat
    tf.saved_model.save(saved, str(tmp_path), signatures=traced)
    loaded = tf.saved_model.load(str(tmp_path)).signatures
    for name, (_, inputs) in given.items():
        flat_inputs = tf.nest.flatten(inputs)
        found = loaded[name](**{f"x{n}": value for n, value in enumerate(flat_inputs)})
        for key, value in expected[name].items():
            near = 1e-5 if value.dtype == tf.float32 else 2e-2
            np.testing.assert_allclose(
                tf.cast(found[key], tf.float32),
                tf.cast(value, tf.float32),
                rtol=near,
                atol=near,
                err_msg=name,
            )
