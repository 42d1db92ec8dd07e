"""Metrics for Keras against the NumPy ones."""

import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import metrics
from monolith_tf import testing

_PAIRS = (
    ("auc", metrics.keras.AUC, metrics.AUC, 1e-5),
    ("entropy", metrics.keras.NormalizedEntropy, metrics.NormalizedEntropy, 1e-6),
    ("calibration", metrics.keras.Calibration, metrics.Calibration, 1e-6),
)


class KerasMetricsTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        self.labels = (self.rng.random(4000) < 0.3).astype(np.float32)
        self.logits = self.rng.normal(2 * self.labels - 1).astype(np.float32)
        self.predictions = tf.sigmoid(self.logits).numpy()
        self.weights = self.rng.exponential(size=4000).astype(np.float32)

    @parameterized.named_parameters(*_PAIRS)
    def test_agrees_with_numpy(self, keras_class, numpy_class, tolerance):
        for from_logits in (False, True):
            metric, exact = keras_class(from_logits=from_logits), numpy_class()
            for rows in np.split(np.arange(4000), 4):
                given = self.logits if from_logits else self.predictions
                metric.update_state(
                    self.labels[rows, None], given[rows, None], self.weights[rows]
                )
                exact.update(
                    self.predictions[rows], self.labels[rows], self.weights[rows]
                )
            self.assertEqual(metric.result().dtype, tf.float32)
            self.assertAllClose(metric.result(), exact.result(), atol=tolerance)

    @parameterized.named_parameters(*_PAIRS)
    def test_empty_and_reset_are_nan(self, keras_class, *_):
        metric = keras_class()
        self.assertTrue(np.isnan(metric.result()))
        metric.update_state([0, 1], [0.3, 0.6])
        self.assertTrue(np.isfinite(metric.result()))
        metric.reset_state()
        self.assertTrue(np.isnan(metric.result()))

    @parameterized.named_parameters(*_PAIRS)
    def test_nan_predictions_give_nan(self, keras_class, *_):
        metric = keras_class()
        metric.update_state([0, 1, 1], [0.3, 0.6, np.nan])
        self.assertTrue(np.isnan(metric.result()))

    def test_area_under_what_are_no_probabilities_is_nan(self):
        metric = metrics.keras.AUC()
        metric.update_state([0, 1], [0.3, 1.6])
        self.assertTrue(np.isnan(metric.result()))

    @parameterized.named_parameters(*_PAIRS)
    def test_merges_and_round_trips_through_its_config(self, keras_class, *_):
        one = keras_class(from_logits=True, name="mine")
        twin = keras_class.from_config(one.get_config())
        self.assertEqual(twin.get_config(), one.get_config())
        whole = keras_class(from_logits=True)
        for metric, rows in ((one, slice(0, 99)), (twin, slice(99, 300))):
            metric.update_state(self.labels[rows], self.logits[rows])
            whole.update_state(self.labels[rows], self.logits[rows])
        one.merge_state([twin])
        self.assertAllClose(one.result(), whole.result())

    def test_compiles_into_a_model_that_saves(self):
        inputs = tf_keras.Input([1])
        outputs = tf_keras.layers.Dense(1, "sigmoid", kernel_initializer="ones")(inputs)
        model = tf_keras.Model(inputs, outputs)
        model.compile(
            "sgd",
            "binary_crossentropy",
            metrics=[metrics.keras.AUC(num_bins=512), metrics.keras.Calibration()],
            weighted_metrics=[metrics.keras.NormalizedEntropy()],
        )
        data = {"x": self.logits, "y": self.labels, "sample_weight": self.weights}
        model.fit(**data, batch_size=1000, verbose=0)
        path = f"{self.get_temp_dir()}/model.keras"
        model.save(path)
        model = tf_keras.models.load_model(path)
        report = model.evaluate(**data, batch_size=999, verbose=0, return_dict=True)
        exact = {
            "auc": (metrics.AUC(), None),
            "calibration": (metrics.Calibration(), None),
            "normalized_entropy": (metrics.NormalizedEntropy(), self.weights),
        }
        predictions = model.predict(self.logits, batch_size=4000, verbose=0)
        for name, (metric, weights) in exact.items():
            metric.update(predictions, self.labels, weights)
            self.assertAllClose(report[name], metric.result(), atol=1e-3)

    def test_works_in_a_distributed_model(self):
        with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
            model = tf_keras.Sequential([tf_keras.layers.Dense(1, "sigmoid")])
            model.compile(loss="mse", metrics=[metrics.keras.AUC()])
        report = model.evaluate(
            self.logits[:, None], self.labels, verbose=0, return_dict=True
        )
        self.assertBetween(report["auc"], 0.0, 1.0)

    def test_rejects_num_bins(self):
        with self.assertRaisesRegex(ValueError, r"`num_bins` .* 2\. .*num_bins=1"):
            metrics.keras.AUC(num_bins=1)
