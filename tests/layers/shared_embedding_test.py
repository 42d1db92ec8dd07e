"""Golden cases of `SharedEmbedding`, which lives in `monolith_tf.embedding`."""

import tensorflow as tf

from monolith_tf import embedding
from monolith_tf import testing

_SGD = {"name": "sgd", "learning_rate": 1.0}


def _layer_and_inputs(case):
    """The case's table and features, and the inputs of each feature."""
    config = case.config
    args, named = case.inputs()
    if "tables" not in config:
        config = {"tables": [config | {"name": "item"}]}
    config["tables"] = [table | {"optimizer": _SGD} for table in config["tables"]]
    if "features" not in config:
        by_combiner = isinstance(case.data["expected"], dict)
        combiners = case.data["expected"] if by_combiner else [None]
        config["features"] = {
            str(c): {"table": "item", "combiner": c} for c in combiners
        }
        named = {name: args[0] for name in config["features"]}
    return embedding.SharedEmbedding(**config, seed=1), named


class SharedEmbeddingTest(testing.TestCase):
    @testing.golden_cases(__file__, "shared_embedding")
    def test_golden(self, case):
        layer, inputs = _layer_and_inputs(case)
        expected = case.data["expected"]
        if not isinstance(expected, dict):
            expected = {"None": expected}
        config = layer.get_config()
        half = type(layer).from_config(config | {"dtype": "mixed_bfloat16"})
        for each in (layer, type(layer).from_config(config), half):
            each.build(None)
            (weight,) = case.data["weights"]
            (table,) = each.embeddings.values()
            self.assertEqual(table.num_rows(), weight["shape"][0])
            table.set_rows(tf.range(weight["shape"][0]), weight["value"])
            tolerance = {"rtol": 0.02} if each is half else case.tolerance
            call = tf.function(each, autograph=False) if each is layer else each
            outputs = {k: tf.cast(t, tf.float32) for k, t in call(inputs).items()}
            self.assertAllClose(outputs, expected, **tolerance)
        if "gradients" in case.data:
            self._check_gradients(layer, inputs, case)
        self.golden_passed.append(f"{case.file}/{case.name}")

    def _check_gradients(self, layer, inputs, case):
        (table,) = layer.embeddings.values()
        before = table.get_rows()[1]
        with tf.GradientTape() as tape:
            outputs = layer(inputs, training=True)
            loss = tf.add_n(
                [
                    tf.reduce_sum(outputs[name] * upstream)
                    for name, upstream in case.data["upstream_gradient"].items()
                ]
            )
        tape.gradient(loss, layer.trainable_weights)
        (expected,) = case.data["gradients"].values()
        # At a rate of 1 a row moves by its gradient.
        self.assertAllClose(before - table.get_rows()[1], expected, **case.tolerance)
