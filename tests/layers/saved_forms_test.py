"""Saved layers that have a compiled form run without XLA."""

import pytest
import tensorflow as tf
import tf_keras
from tensorflow.core.protobuf import saved_model_pb2

from monolith_tf import layers


def _model():
    inputs = tf_keras.Input([3, 4])
    maps = layers.CIN([3, 2], "relu", fused=True)(inputs)
    gates = layers.SeNet(3, 2, fused=True)(inputs)
    x = tf_keras.layers.Concatenate()([maps, gates])
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(1)(x))
    model.compile("adam", "mse")
    model.fit(tf.ones([4, 3, 4]), tf.ones([4, 1]), verbose=0)
    model.predict(tf.ones([4, 3, 4]), verbose=0)
    return model


def _compiled_functions(path):
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((path / "saved_model.pb").read_bytes())
    return [
        function.signature.name
        for graph in saved.meta_graphs
        for function in graph.graph_def.library.function
        if function.attr["_XlaMustCompile"].b
    ]


@pytest.mark.parametrize(
    "save",
    [
        lambda model, path: model.save(path, save_format="tf"),
        lambda model, path: model.export(path),
        lambda model, path: tf.saved_model.save(model, path),
    ],
    ids=["save", "export", "saved_model"],
)
def test_no_function_must_be_compiled(save, tmp_path):
    model = _model()
    save(model, str(tmp_path / "saved"))
    assert _compiled_functions(tmp_path / "saved") == []
    # The trained layer itself is still compiled.
    outputs = model(tf.ones([2, 3, 4]))
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    serve = getattr(loaded, "serve", None) or loaded
    tf.debugging.assert_near(serve(tf.ones([2, 3, 4])), outputs, atol=1e-5)
