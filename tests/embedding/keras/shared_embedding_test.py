import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

import monolith_tf as mt
from monolith_tf import testing
from monolith_tf.embedding import SharedEmbedding

_SGD = {"name": "sgd", "learning_rate": 0.1}
_ITEM = {"name": "item", "output_dim": 3, "optimizer": _SGD}
_START = np.arange(30.0, dtype=np.float32).reshape(10, 3) / 10.0
_LISTS = [[4, 0, 7, 4], [], [0, 9, 0, 0], [0, 0, 0, 0]]


def _layer(features, **table):
    layer = SharedEmbedding([_ITEM | table], features, seed=1)
    layer.build(None)
    layer.embeddings["item"].set_rows(range(10), _START)
    return layer


def _combine(rows, combiner):
    if not len(rows):
        return np.zeros(3)
    if combiner == "max":
        return rows.max(axis=0)
    powers = {"sum": 0.0, "mean": 1.0, "sqrtn": 0.5}
    return rows.sum(axis=0) / len(rows) ** powers[combiner]


class _Shared(tf_keras.layers.Layer):
    """The same by one layer of Keras, for two features."""

    def __init__(self):
        super().__init__()
        penalty = tf_keras.regularizers.L2(0.1)
        self.table = tf_keras.layers.Embedding(10, 3, embeddings_regularizer=penalty)
        self.table.build(None)
        self.table.set_weights([_START])

    def call(self, inputs):
        clicked = tf.reduce_mean(self.table(inputs["clicked"]), axis=1)
        return {"target": self.table(inputs["target"]), "clicked": clicked}


def _model(layer):
    inputs = {
        "target": tf_keras.Input([], dtype="int64", name="target"),
        "clicked": tf_keras.Input([3], dtype="int64", name="clicked"),
    }
    rows = layer(inputs)
    x = tf_keras.layers.Concatenate()([rows["target"], rows["clicked"]])
    y = tf_keras.layers.Dense(1, kernel_initializer="ones")(x)
    model = tf_keras.Model(inputs, y)
    model.compile(tf_keras.optimizers.SGD(0.1), "mse")
    return model


class _Subclassed(tf_keras.Model):
    def __init__(self, **table):
        super().__init__()
        features = {"target": "item", "clicked": {"table": "item", "combiner": "sum"}}
        self.table = SharedEmbedding([_ITEM | table], features, seed=1)

    def call(self, inputs):
        return self.table(inputs)


class SharedEmbeddingTest(testing.TestCase):
    def test_standard_behaviour(self):
        inputs = {
            "target": self.rng.integers(10, size=3),
            "clicked": self.rng.integers(10, size=(3, 2)),
        }
        features = {"target": "item", "clicked": {"table": "item", "combiner": "mean"}}
        self.run_layer_test(
            SharedEmbedding([_ITEM], features),
            inputs=inputs,
            output_shape=[(3, 3), (3, 3)],
            zero_gradients=("anchor",),
            skip={
                "jit": "XLA has no hash tables",
                "empty_training": "counts steps",
                "model": "below, with the names of the inputs",
            },
        )

    def test_config(self):
        table = mt.embedding.SharedTable(
            name="item",
            input_dim=7,
            output_dim=3,
            embeddings_initializer=tf_keras.initializers.Ones(),
            embeddings_regularizer=tf_keras.regularizers.L2(0.1),
            mask_zero=True,
            optimizer=_SGD,
        )
        feature = mt.embedding.SharedFeature(table="item", combiner="sum", max_len=2)
        arguments = {"tables": [table], "features": {"x": feature}, "seed": 3}
        self.run_config_test(SharedEmbedding, arguments)
        twin = SharedEmbedding.from_config(SharedEmbedding(**arguments).get_config())
        (config,) = twin.get_config()["tables"]
        self.assertEqual(config["input_dim"], 7)
        self.assertEqual(config["optimizer"]["learning_rate"], 0.1)
        self.assertEqual(config["embeddings_initializer"]["value"], 1.0)
        expected = {"table": "item", "combiner": "sum", "max_len": 2}
        self.assertEqual(twin.get_config()["features"], {"x": expected})
        self.assertAllEqual(twin({"x": tf.constant([[6, 5, 1]])})["x"], [[2, 2, 2]])

    def test_trains_as_a_layer_of_keras_called_twice(self):
        inputs = {
            "target": self.rng.integers(10, size=16),
            "clicked": self.rng.integers(10, size=(16, 3)),
        }
        labels = self.rng.normal(size=(16, 1)).astype("float32")
        features = {"target": "item", "clicked": {"table": "item", "combiner": "mean"}}
        penalty = tf_keras.regularizers.L2(0.1)
        ours = _layer(features, input_dim=10, embeddings_regularizer=penalty)
        theirs = _Shared()
        losses = [
            _model(layer)
            .fit(inputs, labels, batch_size=4, epochs=2, shuffle=False, verbose=0)
            .history["loss"]
            for layer in (ours, theirs)
        ]
        self.assertAllClose(losses[0], losses[1], rtol=1e-5)
        rows = ours.embeddings["item"].get_rows()[1]
        self.assertAllClose(rows, theirs.table.get_weights()[0], rtol=1e-5)

    def test_reloads(self):
        features = {"target": "item", "clicked": {"table": "item", "combiner": "max"}}
        model = _model(_layer(features))
        path = self.get_temp_dir() + "/model.keras"
        model.save(path)
        inputs = {"target": np.array([1, 5]), "clicked": np.array([[1, 2, 3]] * 2)}
        loaded = tf_keras.models.load_model(path)
        self.assertAllClose(
            loaded.predict(inputs, verbose=0), model.predict(inputs, verbose=0)
        )

    @parameterized.product(
        how=["eager", "functional", "function"], is_numbered=[True, False]
    )
    def test_rows_set_before_the_first_call_stay(self, how, is_numbered):
        layer = SharedEmbedding(
            [_ITEM | ({"input_dim": 10} if is_numbered else {})], {"x": "item"}
        )
        layer.embeddings["item"].set_rows(range(10), _START)
        keys = tf.constant([7, 0], tf.int64)
        if how == "functional":
            inputs = {"x": tf_keras.Input([], dtype="int64", name="x")}
            model = tf_keras.Model(inputs, layer(inputs))
        else:
            model = tf.function(layer) if how == "function" else layer
        self.assertAllEqual(model({"x": keys})["x"], _START[[7, 0]])
        self.assertEqual(layer.embeddings["item"].num_rows(), 10)
        layer.build(None)
        self.assertEqual(layer.embeddings["item"].num_rows(), 10)

    @parameterized.product(form=[".weights.h5", ""], in_graph=[True, False])
    def test_weights_loaded_before_the_first_call_stay(self, form, in_graph):
        inputs = {"target": tf.constant([2, 4]), "clicked": tf.constant([[1], [0]])}
        saved, loaded = _Subclassed(), _Subclassed(input_dim=12)
        saved.table.embeddings["item"].set_rows(range(10), _START)
        saved(inputs)
        path = self.get_temp_dir() + "/weights" + form
        saved.save_weights(path)
        loaded.load_weights(path)
        rows = (tf.function(loaded) if in_graph else loaded)(inputs)
        self.assertAllEqual(rows["target"], _START[[2, 4]])
        self.assertAllEqual(rows["clicked"], _START[[1, 0]])
        self.assertEqual(loaded.table.embeddings["item"].num_rows(), 12)

    @parameterized.product(
        combiner=("sum", "mean", "sqrtn", "max"),
        mask_zero=(False, True),
        form=("dense", "ragged", "sparse"),
        max_len=(None, 2),
    )
    def test_combines(self, combiner, mask_zero, form, max_len):
        lists = [[k for k in x if k or not mask_zero] for x in _LISTS]
        keys = tf.ragged.constant(_LISTS, dtype=tf.int64)
        if form == "dense":
            keys = keys.to_tensor()
            if not mask_zero:
                lists[1] = [0, 0, 0, 0]
        elif form == "sparse":
            keys = keys.to_sparse()
        feature = {"table": "item", "combiner": combiner, "max_len": max_len}
        layer = _layer({"x": feature}, mask_zero=mask_zero)
        expected = [_combine(_START[x[:max_len]], combiner) for x in lists]
        self.assertAllClose(layer({"x": keys})["x"], expected)
        self.assertIsNone(layer.compute_mask({"x": keys})["x"])

    @parameterized.parameters(False, True)
    def test_sparse_keys_in_any_order_and_with_gaps(self, in_graph):
        features = {
            "sum": {"table": "item", "combiner": "sum"},
            "first": {"table": "item", "combiner": "sum", "max_len": 1},
            "all": "item",
            "padded": {"table": "item", "max_len": 3},
        }
        layer = _layer(features)
        # Row 0 holds 6 and 7, row 1 nothing, row 2 holds 5, 8 and 9.
        places = [[2, 4], [0, 3], [2, 1], [0, 0], [2, 3]]
        keys = tf.SparseTensor(places, tf.constant([9, 7, 5, 6, 8], tf.int64), [3, 6])
        inputs = dict.fromkeys(features, keys)
        rows = (tf.function(layer) if in_graph else layer)(inputs)
        self.assertAllClose(
            rows["sum"],
            [_START[[6, 7]].sum(0), np.zeros(3), _START[[5, 8, 9]].sum(0)],
        )
        self.assertAllClose(rows["first"], [_START[6], np.zeros(3), _START[5]])
        self.assertAllClose(rows["all"].flat_values, _START[[6, 7, 5, 8, 9]])
        self.assertAllEqual(rows["all"].row_lengths(), [2, 0, 3])
        self.assertAllClose(rows["padded"][2], _START[[5, 8, 9]])
        mask = layer.compute_mask(inputs)["padded"]
        self.assertAllEqual(mask, [[1, 1, 0], [0, 0, 0], [1, 1, 1]])

    def test_combines_single_keys(self):
        layer = _layer({"x": {"table": "item", "combiner": "sum"}}, mask_zero=True)
        outputs = layer({"x": tf.constant([3, 0])})["x"]
        self.assertAllClose(outputs, [_START[3], [0, 0, 0]])

    def test_one_key_may_be_all_that_is_kept(self):
        layer = _layer({"x": {"table": "item", "combiner": "sum", "max_len": 1}})
        outputs = layer({"x": tf.constant([[3, 5], [7, 0]])})["x"]
        self.assertAllClose(outputs, _START[[3, 7]])

    def test_single_keys_are_not_cut(self):
        layer = _layer({"x": {"table": "item", "max_len": 1}})
        outputs = layer({"x": tf.constant([3, 5, 7])})["x"]
        self.assertAllClose(outputs, _START[[3, 5, 7]])

    def test_layers_behind_it_leave_padding_out(self):
        layer = _layer({"x": "item"}, mask_zero=True)
        rows = layer({"x": tf.constant([[1, 3, 0, 0], [5, 0, 0, 0]])})["x"]
        means = tf_keras.layers.GlobalAveragePooling1D()(rows)
        self.assertAllClose(means, [(_START[1] + _START[3]) / 2, _START[5]])

    @parameterized.parameters(False, True)
    def test_keeps_and_masks_what_is_not_combined(self, mask_zero):
        layer = _layer(
            {"all": "item", "some": {"table": "item", "max_len": 2}},
            mask_zero=mask_zero,
        )
        ragged = tf.ragged.constant([[0, 2, 3], [4], []], dtype=tf.int64)
        dense = tf.constant([[1, 0, 2], [0, 1, 0]])
        outputs = layer({"all": ragged, "some": ragged})
        self.assertAllClose(outputs["all"].flat_values, _START[[0, 2, 3, 4]])
        self.assertAllEqual(outputs["all"].row_lengths(), [3, 1, 0])
        zeros = np.zeros(3)
        self.assertAllClose(
            outputs["some"], [_START[[0, 2]], [_START[4], zeros], [zeros, zeros]]
        )
        masks = layer.compute_mask({"all": ragged, "some": ragged})
        self.assertAllEqual(masks["some"], [[not mask_zero, 1], [1, 0], [0, 0]])
        outputs = layer({"all": dense, "some": dense})
        self.assertAllClose(outputs["all"], _START[dense.numpy()])
        self.assertAllClose(outputs["some"], _START[dense.numpy()[:, :2]])
        of_dense = layer.compute_mask({"all": dense, "some": dense})
        if mask_zero:
            self.assertAllEqual(masks["all"].flat_values, [0, 1, 1, 1])
            self.assertAllEqual(of_dense["all"], [[1, 0, 1], [0, 1, 0]])
            self.assertAllEqual(of_dense["some"], [[1, 0], [0, 1]])
        else:
            self.assertEqual([masks["all"], *of_dense.values()], [None] * 3)

    def test_a_table_without_numbered_rows_takes_strings(self):
        layer = SharedEmbedding(
            [{"name": "word", "output_dim": 2, "mask_zero": True}, _ITEM],
            {"a": "word", "b": {"table": "word", "combiner": "sum"}, "c": "item"},
        )
        inputs = {"a": tf.constant(["x", "y"]), "b": tf.constant([["y", ""], ["", ""]])}
        inputs["c"] = tf.constant([-5, 2**40])
        outputs = layer(inputs, training=True)
        self.assertAllEqual(outputs["b"], [outputs["a"][1], [0, 0]])
        self.assertEqual(layer.embeddings["word"].num_rows(), 2)
        self.assertEqual(layer.embeddings["item"].num_rows(), 2)
        self.assertAllEqual(outputs["a"], layer(inputs)["a"])

    def test_rows_of_a_numbered_table_are_there_from_the_start(self):
        layer = SharedEmbedding([_ITEM | {"input_dim": 4}], {"x": "item"})
        rows = layer({"x": tf.range(4)})["x"].numpy()
        self.assertLen(np.unique(rows), 12)
        for key in (-1, 4):
            with self.assertRaisesRegex(
                tf.errors.InvalidArgumentError, "`item` must be .* below its .*, 4"
            ):
                layer({"x": tf.constant([key])})

    @parameterized.parameters(
        ([_ITEM, _ITEM], {"x": "item"}, r"differ in name\. .*\['item', 'item'\]"),
        ([_ITEM], {"x": "itm"}, r"'x' must name .*table='itm'; .*\['item'\]"),
        ([_ITEM | {"input_dim": 0}], {}, r"`input_dim` must be .*input_dim=0\."),
        ([_ITEM | {"dim": 2}], {}, r"A `SharedTable` must .*Received: \['dim'\]"),
        ([_ITEM], {"x": {"table": "item", "combiner": "avg"}}, r"combiner='avg'"),
        ([_ITEM], {"x": {"table": "item", "max_len": 0}}, r"`max_len` .*max_len=0\."),
    )
    def test_rejects(self, tables, features, message):
        with self.assertRaisesRegex(ValueError, message):
            SharedEmbedding(tables, features)

    def test_rejects_sparse_keys_that_are_no_matrix(self):
        layer = _layer({"x": {"table": "item", "combiner": "sum"}})
        with self.assertRaisesRegex(ValueError, r"\[batch, length\].*shape=\(2,\)"):
            layer({"x": tf.SparseTensor([[0]], [1], [2])})

    def test_rejects_inputs(self):
        layer = _layer({"x": {"table": "item", "combiner": "sum"}})
        with self.assertRaisesRegex(ValueError, r"Received: \['z'\]; .*\['x'\]"):
            layer({"x": tf.constant([1]), "z": tf.constant([1])})
        with self.assertRaisesRegex(ValueError, r"'x' must have .*\(1, 1, 1\)"):
            layer({"x": tf.constant([[[1]]])})
