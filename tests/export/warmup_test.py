"""The warm-up file has only requests that a server with batching can answer."""

import pathlib
import tempfile

import numpy as np
import tensorflow as tf

from monolith_tf import testing
from monolith_tf.export import saved_model
from monolith_tf.export import spec as spec_lib
from monolith_tf.models import base
from monolith_tf.testing import batching
from monolith_tf.testing import c_session
from monolith_tf.testing import small_network

_ROWS = 40
_METHODS = {
    "serving_default": "predict",
    "serialized_example": "predict",
    "sums": "predict",
    "classify_click": "classify",
    "regress_click": "regress",
}


class _Total(small_network.Sum):
    """Has an output of one number for all rows."""

    def model_fn(self, inputs: base.Inputs, mode: base.Mode) -> base.EstimatorSpec:
        spec = super().model_fn(inputs, mode)
        total = tf.reduce_sum(spec.extra_outputs["sums"])
        return base.EstimatorSpec(
            mode=mode,
            predictions=spec.predictions,
            extra_outputs={**spec.extra_outputs, "total": total},
        )


class WarmupTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def export(self, size=_ROWS, model=None, **options):
        """Exports with every kind of signature; returns the version's folder."""
        weights = {"user": {1: [1, 2, 3]}, "item": {2: [3, 4, 5]}}
        history = [[2] * (1 + number % 3) for number in range(size)]
        columns = small_network.COLUMNS
        sample = small_network.sample(
            np.arange(size), history, np.arange(size), np.arange(size)
        )
        return saved_model.export(
            small_network.make(model=model),
            # The first column is a list.
            {name: columns[name] for name in sorted(columns)},
            self.folder,
            rows=lambda: small_network.rows(weights),
            spec=spec_lib.ExportSpec(
                **{
                    "output_signatures": ("sums",),
                    "classify": ("click",),
                    "regress": ("click",),
                    "user_features": ("user", "history"),
                    "spare_rows": 4,
                    **options,
                }
            ),
            sample=sample,
        )

    def records(self, path):
        return {
            key: (method, inputs)
            for key, method, inputs in batching.warmup_records(path)
        }

    def check(self, path, methods, rows):
        """Asserts which signatures have a request, and that the batcher accepts it."""
        records = self.records(path)
        self.assertEqual({k: method for k, (method, _) in records.items()}, methods)
        answers = c_session.ask(
            path, [(key, inputs) for key, (_, inputs) in records.items()]
        )
        for (key, (_, inputs)), answer in zip(records.items(), answers, strict=True):
            self.assertIsNone(batching.refusal(inputs, rows), key)
            # It splits answers by their rows.
            self.assertEqual({value.shape[0] for value in answer.values()}, {rows}, key)
        return records

    def test_a_batching_server_takes_every_request(self):
        with self.assertLogs("absl", "WARNING") as logs:
            path = self.export(warmup_rows=32)
        self.assertIn("Warm-up requests have 16 rows, not the 32 of", str(logs.output))
        records = self.check(path, _METHODS, 16)
        _, inputs = records["serving_default"]
        self.assertAllEqual(inputs["history_length"], 1 + np.arange(16) % 3)
        self.assertEqual(inputs["history"].shape, (16, 3))
        self.assertAllEqual(inputs["user"], np.arange(16))

    def test_what_cannot_be_joined_is_left_out(self):
        # Lists as values, and outputs without a row for each row. With a single row
        # most first dimensions are equal by chance, but two requests cannot be merged.
        path = self.export(
            1, list_inputs="values", model=_Total(), output_signatures=("total",)
        )
        methods = {k: v for k, v in _METHODS.items() if v != "predict"}
        self.check(path, methods, 1)

    def test_what_the_batcher_refuses(self):
        self.assertIn("at least one input", batching.refusal({}, 16))
        for shapes, reason in (
            (((3,), ()), "at least one dimension"),
            (((3, 2), (1, 2)), "equal 0th-dimension"),
            (((17,),), "17 rows are more than max_batch_size 16"),
        ):
            inputs = {str(i): np.zeros(shape) for i, shape in enumerate(shapes)}
            self.assertIn(reason, batching.refusal(inputs, 16))
