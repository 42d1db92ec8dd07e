"""Graphs that a stock server would refuse are found before publishing."""

import pathlib
import tempfile

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from monolith_tf import testing
from monolith_tf.export import errors
from monolith_tf.export import graph


class GraphTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.path = self.folder / "saved_model.pb"

    def save(self, function, **attributes):
        module = tf.Module()
        for name, value in attributes.items():
            setattr(module, name, value)
        module.f = tf.function(
            function, input_signature=[tf.TensorSpec([None], tf.float32, name="x")]
        )
        tf.saved_model.save(module, str(self.folder), signatures=module.f)

    def edit(self, change):
        saved = saved_model_pb2.SavedModel.FromString(self.path.read_bytes())
        for function in saved.meta_graphs[0].graph_def.library.function:
            for node in function.node_def:
                change(node)
        self.path.write_bytes(saved.SerializeToString())

    def refused(self, message):
        with self.assertRaisesRegex(errors.ExportError, message):
            graph.check(self.folder)

    def test_python(self):
        self.save(lambda x: {"y": tf.numpy_function(np.sin, [x], tf.float32)})
        self.refused("has the op PyFunc, which runs Python; a model server does not")

    def test_logs(self):
        def function(x):
            tf.print(x)
            return {"y": x}

        self.save(function)
        self.refused("has the op PrintV2, which writes logs")

    def test_an_op_that_tensorflow_does_not_have(self):
        self.save(lambda x: {"y": tf.sin(x)})
        graph.check(self.folder)

        def change(node):
            if node.op == "Sin":
                node.op = "FancySin"

        self.edit(change)
        self.refused(
            "has the op FancySin, which TensorFlow and stock model servers do not have"
        )

    def test_devices(self):
        self.save(lambda x: {"y": tf.sin(x)})

        def pin(device):
            def change(node):
                if node.op == "Sin":
                    node.device = device

            self.edit(change)

        pin("/job:ps/task:1")
        self.refused("is pinned to /job:ps/task:1, which no server has")
        pin("/device:GPU:0")
        self.refused("is pinned to /device:GPU:0")
        graph.finish(self.folder, {"serving_default": "tensorflow/serving/regress"})
        graph.check(self.folder)
        saved = saved_model_pb2.SavedModel.FromString(self.path.read_bytes())
        signature = saved.meta_graphs[0].signature_def["serving_default"]
        self.assertEqual(signature.method_name, "tensorflow/serving/regress")

    def test_files_of_this_machine(self):
        words = self.folder / "words.txt"
        words.write_text("a\nb\n")
        self.save(
            lambda x: {"y": x, "name": tf.strings.join([str(words), tf.as_string(x)])}
        )
        self.refused("names the file '.*words.txt' of this machine. Make it an asset")

    def test_assets(self):
        words = self.folder / "words.txt"
        words.write_text("a\nb\n")
        table = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                str(words), tf.string, 0, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
            ),
            default_value=-1,
        )
        self.save(lambda x: {"y": table.lookup(tf.as_string(x))}, table=table)
        words.unlink()
        graph.check(self.folder)
        (self.folder / "assets" / "words.txt").unlink()
        self.refused("The asset `words.txt` is not in .*assets")
