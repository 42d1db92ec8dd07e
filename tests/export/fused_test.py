"""Fused layers are exported in their plain form."""

import pathlib
import tempfile

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from monolith_tf import layers
from monolith_tf import testing
from monolith_tf.embedding.frozen.store import FrozenStore
from monolith_tf.export import errors
from monolith_tf.export import graph
from monolith_tf.export import saved_model
from monolith_tf.features.columns import ColumnType
from monolith_tf.models import base


class _Network(tf.Module):
    """The parts of a network that an export needs, with fused layers."""

    def __init__(self):
        super().__init__()
        self.store = FrozenStore([], [])
        self.encoder = tf.Module()
        self.encoder.features = ()
        self.model = tf.Module()
        self.model.senet = layers.SeNet(2, 3, on_gpu=True, out_type="stack")
        self.model.cin = layers.CIN([3, 2, 1], activation="tanh", fused=True)

    def __call__(self, columns, mode):
        x = tf.stack([columns["a"], columns["b"]], axis=1)[..., tf.newaxis]
        logits = tf.reduce_sum(self.model.cin(self.model.senet(x)), axis=-1)
        return base.EstimatorSpec(mode=mode, predictions={"click": tf.sigmoid(logits)})


def _compiled_nodes(path):
    """Returns the nodes and functions that XLA must compile."""
    model = saved_model_pb2.SavedModel.FromString(
        (path / "saved_model.pb").read_bytes()
    )
    found = []
    for meta_graph in model.meta_graphs:
        library = meta_graph.graph_def.library.function
        nodes = list(meta_graph.graph_def.node)
        nodes += [node for function in library for node in function.node_def]
        for item in (*nodes, *library):
            if "_XlaMustCompile" in item.attr and item.attr["_XlaMustCompile"].b:
                found.append(item)
    return found


class FusedTest(testing.TestCase):
    def test_is_exported_plain(self):
        network = _Network()
        columns = {name: ColumnType(dtype="float32") for name in ("a", "b")}
        sample = {name: self.rng.normal(size=5).astype("f4") for name in columns}
        expected = network(sample, base.Mode.PREDICT).predictions["click"]
        with tempfile.TemporaryDirectory() as folder:
            path = saved_model.export(network, columns, folder)
            self.assertEmpty(_compiled_nodes(path))
            served = tf.saved_model.load(path).signatures["serving_default"](**sample)
        self.assertAllClose(served["click"], expected, rtol=1e-5, atol=1e-6)

    def test_is_refused_where_it_was_traced_before_it_is_saved(self):
        network = _Network()
        spec = tf.TensorSpec([None], tf.float32)
        function = tf.function(
            lambda a, b: network({"a": a, "b": b}, base.Mode.PREDICT).predictions,
            input_signature=[spec, spec],
        )
        traced = function.get_concrete_function()
        with tempfile.TemporaryDirectory() as folder:
            tf.saved_model.save(network, folder, signatures=traced)
            self.assertNotEmpty(_compiled_nodes(pathlib.Path(folder)))
            with self.assertRaisesRegex(errors.ExportError, "must be compiled by XLA"):
                graph.check(pathlib.Path(folder))
