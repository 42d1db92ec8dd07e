import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

import monolith_tf as mt
from monolith_tf import testing

_KEYS = np.array([[3, -1], [-(2**63), 2**63 - 1], [3, 7], [8, -1]])
_LABELS = np.array([[0.5], [1.5], [-1.0], [2.0]], np.float32)


@tf_keras.utils.register_keras_serializable(package="tests")
class _Subclassed(tf_keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.table = mt.embedding.Embedding(2, name="table", seed=1)
        self.dense = tf_keras.layers.Dense(1)

    def call(self, keys):
        return self.dense(tf.reshape(self.table(keys), [-1, 4]))


def _functional():
    keys = tf_keras.Input([2], dtype="int64", name="keys")
    rows = mt.embedding.Embedding(2, name="table", seed=1)(keys)
    y = tf_keras.layers.Dense(1)(tf_keras.layers.Flatten()(rows))
    return tf_keras.Model(keys, y)


_MODELS = {"functional": _functional, "subclassed": _Subclassed}


def _table(model):
    return next(x for x in model.layers if x.name == "table")


class KerasSavingTest(testing.TestCase):
    def _trained(self, kind="functional"):
        model = _MODELS[kind]()
        model.compile(tf_keras.optimizers.SGD(0.1), "mse")
        self._train(model)
        return model

    def _train(self, model):
        model.fit(_KEYS, _LABELS, batch_size=2, epochs=2, shuffle=False, verbose=0)

    def _assert_same(self, model, other):
        keys, rows = _table(model).get_rows()
        self.assertLen(keys, 6)
        self.assertAllEqual(_table(other).get_rows()[0], keys)
        self.assertAllClose(_table(other).get_rows()[1], rows, rtol=1e-6)
        unknown = np.array([[100, 3]])
        for batch in (_KEYS, unknown):
            self.assertAllClose(other.predict(batch, verbose=0), model(batch))

    @parameterized.product(
        kind=("functional", "subclassed"), path=("model.keras", "saved_model")
    )
    def test_a_loaded_model_goes_on_where_the_saved_one_was(self, kind, path):
        model = self._trained(kind)
        path = f"{self.get_temp_dir()}/{path}"
        model.save(path)
        loaded = tf_keras.models.load_model(path)
        self._assert_same(model, loaded)
        # Accumulators and the count of steps came along.
        for each in (model, loaded):
            self._train(each)
        self._assert_same(model, loaded)

    @parameterized.product(kind=("functional", "subclassed"), how=("save", "export"))
    def test_a_server_needs_nothing_of_this_package(self, kind, how):
        model = self._trained(kind)
        path = self.get_temp_dir()
        getattr(model, how)(path)
        served = tf.saved_model.load(path).signatures["serving_default"]
        (name,) = served.structured_input_signature[1]
        (answer,) = served(**{name: tf.constant(_KEYS)}).values()
        expected = model(_KEYS).numpy()
        self.assertAllClose(answer, expected)
        # What is saved does not change with the model, nor the model with it.
        self._train(model)
        (answer,) = served(**{name: tf.constant(_KEYS)}).values()
        self.assertAllClose(answer, expected)
        self.assertNotAllClose(model(_KEYS), expected)

    def test_a_saved_model_is_as_large_as_its_rows(self):
        self._trained().save(self.get_temp_dir())
        files = pathlib.Path(self.get_temp_dir()).rglob("variables*")
        self.assertLess(sum(file.stat().st_size for file in files), 1 << 15)

    @parameterized.parameters("rows.weights.h5", "checkpoint")
    def test_weights(self, path):
        model, other = self._trained(), _functional()
        path = f"{self.get_temp_dir()}/{path}"
        model.save_weights(path)
        other.load_weights(path)
        self._assert_same(model, other)

    def test_a_checkpoint_is_restored_before_there_is_a_table(self):
        model, other = self._trained("subclassed"), _Subclassed()
        path = tf.train.Checkpoint(model).save(self.get_temp_dir() + "/c")
        status = tf.train.Checkpoint(other).restore(path)
        other(_KEYS)
        status.assert_existing_objects_matched()
        self._assert_same(model, other)

    def test_the_best_weights_of_early_stopping_come_back(self):
        model = self._trained()
        best = tf_keras.callbacks.EarlyStopping(
            "val_loss", patience=1, restore_best_weights=True
        )
        seen = []
        see = tf_keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: seen.append(_table(model).get_rows()[1])
        )
        # The better the labels are fitted, the worse is the validation's loss.
        model.fit(
            _KEYS,
            _LABELS,
            validation_data=(_KEYS, -_LABELS),
            epochs=4,
            callbacks=[see, best],
            verbose=0,
        )
        self.assertLen(seen, 2)
        self.assertNotAllClose(seen[0], seen[1])
        self.assertAllEqual(_table(model).get_rows()[1], seen[0])

    @parameterized.named_parameters(
        ("twice", [7, 7], "7 twice, one of 1 such keys"),
        ("fractions", [1.0, 2.5], r"2\.5 of float64, at \[1\]"),
        ("nan", [np.nan, 1.0], r"nan of float64, at \[0\]"),
        ("infinite", [1.0, np.inf], r"inf of float64, at \[1\]"),
        ("inexact", [1.0, 2.0**53], r"9007199254740992\.0 of float64, at \[1\]"),
        ("inexact_single", np.float32([2.0**24, 1.0]), r"16777216\.0 of float32"),
        ("unsigned", np.uint64([1, 2**63]), "9223372036854775808 of uint64"),
        ("bools", [True, False], "True of bool"),
        ("too_many", [1, 2, 3], r"keys of shape \(3,\), 2 rows, 2 states"),
        ("of_two_ranks", [[1], [2]], r"keys of shape \(2, 1\), 2 rows, 2 states"),
    )
    def test_keys_that_cannot_be_those_of_get_weights_change_nothing(self, keys, found):
        table = mt.embedding.Embedding(2, name="table")
        table.set_rows([1, 2], [[1.0, 1.0], [2.0, 2.0]])
        before = table.get_weights()
        (place,) = [i for i, w in enumerate(before) if w.shape == (2,)]
        given = [w + 1 for w in before]
        given[place] = np.array(keys)
        with self.assertRaisesRegex(
            ValueError,
            rf"Embedding `table` must be .* Received: {found}.*\. Keys are no weights",
        ):
            table.set_weights(given)
        for after, weight in zip(table.get_weights(), before, strict=True):
            self.assertAllEqual(after, weight)

    def test_whole_floats_are_keys(self):
        table, other = (mt.embedding.Embedding(2, name=name) for name in "ab")
        keys = [-(2**53) + 1, 2**53 - 1]
        table.set_rows(keys, [[1.0, 1.0], [2.0, 2.0]])
        other.build(None)
        other.set_weights([np.asarray(w, np.float64) for w in table.get_weights()])
        self.assertAllEqual(other.get_rows()[0], keys)
        self.assertAllEqual(other.get_rows()[1], table.get_rows()[1])

    def test_averages_of_the_weights_of_models_with_other_keys_are_refused(self):
        for keys in ([2, 1], [3, 2], [2**62 + 1, 2**62 + 3]):
            tables = [mt.embedding.Embedding(2, name="table") for _ in range(3)]
            for table, own in zip(tables, ([1, 2], keys, [9, 8]), strict=True):
                table.set_rows(own, np.full([2, 2], float(own[0] % 7)))
            pairs = zip(*(table.get_weights() for table in tables[:2]), strict=True)
            mean = [(a + b) / 2 for a, b in pairs]
            with self.assertRaisesRegex(ValueError, "no weights to average"):
                tables[2].set_weights(mean)
            self.assertAllEqual(tables[2].get_rows()[0], [8, 9])

    def test_rejects_files_of_other_layers(self):
        folder = self.get_temp_dir()
        self._trained().save_weights(f"{folder}/rows.weights.h5")
        keys = tf_keras.Input([2], dtype="int64")
        wider = mt.embedding.Embedding(3, optimizer="sgd", name="table")(keys)
        y = tf_keras.layers.Dense(1)(tf_keras.layers.Flatten()(wider))
        with self.assertRaisesRegex(
            ValueError,
            r"fit embedding `table`, whose rows have 3 weights and 0 numbers of "
            r"optimizer state\. Received: rows of 2 and 2\.",
        ):
            tf_keras.Model(keys, y).load_weights(f"{folder}/rows.weights.h5")
        table = mt.embedding.Embedding(2, name="table")
        with self.assertRaisesRegex(
            ValueError, r"rows of embedding `table`\. .*without \['keys', 'weights'"
        ):
            table.load_own_variables({"0": np.zeros([10, 2])})

    @parameterized.parameters("save", "save_weights")
    @pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
    def test_an_h5_file_is_refused_and_says_which_forms_hold_the_rows(self, method):
        model = self._trained()
        with self.assertRaisesRegex(
            NotImplementedError,
            r"not supported in h5, .*`table/rows`, which `\.keras` and `\.weights\.h5` "
            "files hold",
        ):
            getattr(model, method)(f"{self.get_temp_dir()}/{method}.h5")

    def test_tensor_board_shows_histograms_of_the_rows(self):
        folder = self.get_temp_dir()
        board = tf_keras.callbacks.TensorBoard(
            folder, histogram_freq=1, write_images=True
        )
        model = self._trained()
        model.fit(_KEYS, _LABELS, epochs=1, verbose=0, callbacks=[board])
        (file,) = pathlib.Path(folder).rglob("events*")
        found = {}
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            found |= {v.tag: tf.make_ndarray(v.tensor) for v in event.summary.value}
        # Each line of a histogram is left edge, right edge and count.
        histogram = found["table/rows/histogram"]
        _, rows = _table(model).get_rows()
        self.assertEqual(histogram[:, 2].sum(), rows.size)
        self.assertAllClose(histogram[0, 0], rows.min())
        self.assertAllClose(histogram[-1, 1], rows.max())
