"""Exports of a network whose answers NumPy computes, through TensorFlow's C API."""

import pathlib
import sys
import tempfile
from unittest import mock

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from monolith_tf import testing
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.export import errors
from monolith_tf.export import metadata
from monolith_tf.export import saved_model
from monolith_tf.export import spec as spec_lib
from monolith_tf.export import warmup
from monolith_tf.lineage import Branch
from monolith_tf.lineage import Lineage
from monolith_tf.testing import c_session
from monolith_tf.testing import small_network

_SAMPLE = ([7, 8, 99], [[1, 2], [], [3]], [1, 3, 98], [0.5, -1.0, 0.25])
_ALL = spec_lib.ExportSpec(
    output_signatures=("sums",),
    classify=("click", "sums"),
    regress=("click",),
    user_features=("user", "history"),
)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _examples(columns):
    examples = []
    for user, history, item, price in zip(
        columns["user"], columns["history"].to_list(), columns["item"],
        columns["price"], strict=True,
    ):  # fmt: skip
        example = tf.train.Example()
        for name, values in (("user", [user]), ("history", history), ("item", [item])):
            example.features.feature[name].int64_list.value.extend(values)
        example.features.feature["price"].float_list.value.append(price)
        examples.append(example.SerializeToString())
    return np.array(examples, object)


_LINEAGE = Lineage((Branch("a job"),))


class ExportTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.weights = {
            "user": {v: self.rng.normal(size=3) for v in (7, 8)},
            "item": {v: self.rng.normal(size=3) for v in (1, 2, 3)},
        }
        self.sample = small_network.sample(*_SAMPLE)

    def export(self, spec=_ALL, tables=(), sample=True, **kwargs):
        chunks = small_network.rows(self.weights)
        return saved_model.export(
            small_network.make(tables),
            small_network.COLUMNS,
            self.folder,
            rows=lambda: chunks,
            spec=spec,
            sample=self.sample if sample else None,
            **kwargs,
        )

    def named(self):
        return {
            "user": self.sample["user"],
            "history": np.array([[1, 2], [0, 0], [3, 0]]),
            "history_length": np.array([2, 0, 1]),
            "item": self.sample["item"],
            "price": self.sample["price"],
        }

    def test_every_signature_answers_as_numpy_does(self):
        path = self.export()
        named, examples = self.named(), _examples(self.sample)
        candidates = {
            name: value[:1] if name in ("user", "history", "history_length") else value
            for name, value in named.items()
        }
        asked = {
            "serving_default": named,
            "serialized_example": {"examples": examples},
            "sums": named,
            "classify_click": {"inputs": examples},
            "classify_sums": {"inputs": examples},
            "regress_click": {"inputs": examples},
            "candidates": candidates,
        }
        answers = dict(
            zip(asked, c_session.ask(path, list(asked.items())), strict=True)
        )
        sums = small_network.sums(self.weights, self.sample)
        click, both = _sigmoid(sums), np.stack([sums, -sums], axis=1)
        classes = [[b"0", b"1"]] * 3
        expected = {
            "serving_default": {"click": click, "sums": both},
            "serialized_example": {"click": click, "sums": both},
            "sums": {"sums": both},
            "classify_click": {
                "classes": classes,
                "scores": np.stack([1 - click, click], axis=1),
            },
            "classify_sums": {"classes": classes, "scores": both},
            "regress_click": {"outputs": click},
        }
        one_user = small_network.sample([7] * 3, [[1, 2]] * 3, *_SAMPLE[2:])
        sums = small_network.sums(self.weights, one_user)
        expected["candidates"] = {
            "click": _sigmoid(sums),
            "sums": np.stack([sums, -sums], axis=1),
        }
        for key, outputs in expected.items():
            self.assertEqual(set(answers[key]), set(outputs), key)
            for name, value in outputs.items():
                if name == "classes":
                    self.assertEqual(answers[key][name].tolist(), value)
                else:
                    self.assertAllClose(answers[key][name], value, 1e-5, 1e-6, key)

        self.check_methods_and_warm_up(path)

    def check_methods_and_warm_up(self, path):
        saved = saved_model_pb2.SavedModel.FromString(
            (path / "saved_model.pb").read_bytes()
        )
        methods = {
            key: signature.method_name.removeprefix("tensorflow/serving/")
            for key, signature in saved.meta_graphs[0].signature_def.items()
            if not key.startswith("__")
        }
        self.assertEqual(
            methods,
            {
                "serving_default": "predict",
                "serialized_example": "predict",
                "sums": "predict",
                "classify_click": "classify",
                "classify_sums": "classify",
                "regress_click": "regress",
                "candidates": "predict",
            },
        )
        file = path / "assets.extra" / "tf_serving_warmup_requests"
        warm = {}
        for record in tf.compat.v1.io.tf_record_iterator(str(file)):
            log = prediction_log_pb2.PredictionLog.FromString(record)
            kind = log.WhichOneof("log_type")
            request = getattr(log, kind).request
            warm[request.model_spec.signature_name] = (kind, request)
        del methods["candidates"]  # A server with batching could not answer it.
        self.assertEqual(
            {key: f"{method}_log" for key, method in methods.items()},
            {key: kind for key, (kind, _) in warm.items()},
        )
        inputs = warm["serving_default"][1].inputs
        self.assertAllEqual(tf.make_ndarray(inputs["user"]), [7, 8, 99])
        self.assertAllEqual(tf.make_ndarray(inputs["history_length"]), [2, 0, 1])
        self.assertLen(warm["regress_click"][1].input.example_list.examples, 3)

    def test_lists_as_values(self):
        path = self.export(spec_lib.ExportSpec(list_inputs="values"), sample=False)
        named = {**self.named(), "history": np.array([1, 2, 3])}
        wrong = {**named, "history_length": np.array([2, 0, 2])}
        answer, refused = c_session.ask(
            path, [("serving_default", named), ("serving_default", wrong)]
        )
        sums = small_network.sums(self.weights, self.sample)
        self.assertAllClose(answer["click"], _sigmoid(sums), 1e-5, 1e-6)
        self.assertIn(
            "`history_length` must be, for each row of `history`, at least 0, and add "
            "up to the number of its values.",
            refused,
        )

    def test_a_length_beyond_the_padded_list_is_refused(self):
        path = self.export(spec_lib.ExportSpec(), sample=False)
        wrong = {**self.named(), "history_length": np.array([2, 0, 3])}
        (refused,) = c_session.ask(path, [("serving_default", wrong)])
        self.assertIn(
            "`history_length` must be, for each row of `history`, between 0 and the "
            "number of its columns.",
            refused,
        )

    def test_rows_of_small_integers_are_not_searched_for(self):
        def searches(path):
            saved = saved_model_pb2.SavedModel.FromString(
                (path / "saved_model.pb").read_bytes()
            )
            return sum(
                node.op.startswith("LookupTableFind")
                for function in saved.meta_graphs[0].graph_def.library.function
                for node in function.node_def
            )

        spec = spec_lib.ExportSpec()
        self.assertEqual(searches(self.export(spec)), 0)
        self.assertGreater(searches(self.export(spec_lib.ExportSpec(spare_rows=1))), 0)
        # Some tables of a group may have larger ones.
        self.weights["user"][2**40] = np.full(3, 0.5)
        path = self.export(spec)
        self.assertGreater(searches(path), 0)
        users, items = [7, -7, 2**40, 2**62], [2, -(2**63), 2**40, 3]
        lists = [[1, -1, 2**63 - 1], [5], [0, 4], [2**48, 3]]
        sample = small_network.sample(users, lists, items, [0.0] * 4)
        named = {
            "user": np.array(users),
            "history": sample["history"].to_tensor(2).numpy(),  # Padded with a row.
            "history_length": sample["history"].row_lengths().numpy(),
            "item": np.array(items),
            "price": np.zeros([4], np.float32),
        }
        (answer,) = c_session.ask(path, [("serving_default", named)])
        sums = small_network.sums(self.weights, sample)
        self.assertAllClose(answer["sums"][:, 0], sums, 1e-5, 1e-6)

    def test_zero_rows_are_dropped_and_compression_is_reported(self):
        self.weights["item"][2] = np.zeros(3)
        self.weights["item"][3] = np.full(3, 1e-3)  # Zero in 8 bits.
        tables = [
            TableSpec(name="user", slot=1, dim=3, compressor="fp16"),
            TableSpec(name="item", slot=2, dim=3, compressor="int8", int8_range=4.0),
        ]
        path = self.export(
            tables=tables, origin=saved_model.Origin(lineage=_LINEAGE, step=12)
        )
        found = metadata.read(path)
        self.assertEqual(found["job"], "a job")
        self.assertEqual(found["lineage"], [["a job", 0]])
        self.assertEqual(found["step"], 12)
        self.assertEqual(found["user_columns"], ["history", "user"])
        groups = found["groups"]
        self.assertEqual(
            groups[found["tables"]["user"]["group"]],
            {"rows": 2, "dropped_rows": 0, "capacity": 2},
        )
        self.assertEqual(
            groups[found["tables"]["item"]["group"]],
            {"rows": 1, "dropped_rows": 2, "capacity": 1},
        )
        (answer,) = c_session.ask(path, [("serving_default", self.named())])
        sums = small_network.sums(self.weights, self.sample)
        exact = {"click": _sigmoid(sums), "sums": np.stack([sums, -sums], axis=1)}
        largest = max(np.abs(answer[n] - v).max() for n, v in exact.items())
        self.assertGreater(largest, 1e-4)
        self.assertAllClose(found["largest_difference"], largest, 1e-3, 1e-6)
        shapes = dict(tf.train.list_variables(str(path / "variables" / "variables")))
        self.assertEqual(
            sorted(tuple(s) for n, s in shapes.items() if "slices" in n),
            [(2, 3), (3, 3)],  # With a row of zeros each.
        )

    def test_versions_are_kept(self):
        spec = spec_lib.ExportSpec(keep_versions=2)
        paths = [self.export(spec, sample=False) for _ in range(3)]
        self.assertLess(int(paths[1].name), int(paths[2].name))
        self.assertCountEqual(self.folder.iterdir(), paths[1:])
        self.assertIsNone(metadata.read(paths[2])["largest_difference"])

    def test_what_cannot_be_exported(self):
        def refused(message, **spec):
            with self.assertRaisesRegex(errors.ExportError, message):
                self.export(spec_lib.ExportSpec(**spec))
            self.assertEmpty(list(self.folder.iterdir()))

        refused(
            r"`export.classify` must name outputs of the model. Received: 'x'; the "
            r"model has \['click', 'sums'\].",
            classify=("x",),
        )
        refused(
            r"`export.regress` must name heads of one number per row. Received: head "
            r"`sums` of shape \(None, 2\).",
            regress=("sums",),
        )
        refused(
            "Two signatures of the export would have the key `serialized_example`.",
            output_signatures=("serialized_example",),
        )
        refused(
            r"`export.user_features` must name features. Received: \['x'\]; the "
            r"features are \['user', 'history', 'item', 'price'\].",
            user_features=("x",),
        )
        refused(
            r"`export.user_features` must leave a feature to the items. Received: all",
            user_features=("user", "history", "item", "price"),
        )

    def test_without_the_serving_extra_there_are_no_warm_up_requests(self):
        hidden = {"tensorflow_serving.apis": None}
        with mock.patch.dict(sys.modules, hidden), self.assertLogs() as logs:
            warmup.write(self.folder, {})
        self.assertIn("Run `pip install monolith_tf[serving]`", logs.output[0])
        self.assertEmpty(list(self.folder.iterdir()))
