"""Log loss, normalized entropy, calibration and errors against their definitions."""

import numpy as np
import sklearn.metrics

from monolith_tf import metrics
from monolith_tf import testing


def _result(metric, *columns):
    metric.update(*columns)
    return metric.result()


class PointwiseTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        self.labels = (self.rng.random(500) < 0.3).astype(np.float64)
        self.predictions = self.rng.random(500).astype(np.float32)
        self.weights = self.rng.exponential(size=500).astype(np.float32)
        # scikit-learn computes in float32 for float32 inputs.
        self.p = self.predictions.astype(np.float64)
        self.w = self.weights.astype(np.float64)
        self.columns = (self.predictions, self.labels, self.weights)

    def test_log_loss_equals_scikit_learn(self):
        expected = sklearn.metrics.log_loss(self.labels, self.p, sample_weight=self.w)
        self.assertAlmostEqual(_result(metrics.LogLoss(), *self.columns), expected, 12)

    def test_log_loss_of_a_sure_mistake_is_finite(self):
        result = _result(metrics.LogLoss(), [1.0, 0.0], [0, 0])
        self.assertAlmostEqual(result, -np.log(1e-7) / 2, places=5)

    def test_normalized_entropy_divides_by_that_of_the_base_rate(self):
        rate = self.w @ self.labels / self.w.sum()
        constant = sklearn.metrics.log_loss(
            self.labels, np.full(500, rate), sample_weight=self.w
        )
        loss = sklearn.metrics.log_loss(self.labels, self.p, sample_weight=self.w)
        result = _result(metrics.NormalizedEntropy(), *self.columns)
        self.assertAlmostEqual(result, loss / constant, places=12)
        base = _result(metrics.NormalizedEntropy(), [0.25] * 4, [1, 0, 0, 0])
        self.assertAlmostEqual(base, 1.0)

    def test_normalized_entropy_of_one_class_is_nan(self):
        weights = self.weights[:50]
        for label in (0, 1):
            columns = self.predictions[:50], np.full(50, label), weights
            self.assertTrue(np.isnan(_result(metrics.NormalizedEntropy(), *columns)))

    def test_calibration_is_predicted_over_observed(self):
        result = _result(metrics.Calibration(), [0.5, 0.25, 0.75], [1, 0, 1], [1, 2, 4])
        self.assertEqual(result, (0.5 + 0.5 + 3.0) / (1 + 4))

    def test_calibration_without_events_is_nan(self):
        self.assertTrue(np.isnan(_result(metrics.Calibration(), [0.5], [0])))

    def test_squared_errors_equal_scikit_learn(self):
        expected = sklearn.metrics.mean_squared_error(
            self.labels, self.p, sample_weight=self.w
        )
        self.assertAlmostEqual(_result(metrics.MSE(), *self.columns), expected, 12)
        self.assertAlmostEqual(
            _result(metrics.RMSE(), *self.columns), np.sqrt(expected), 12
        )

    def test_accuracy_equals_scikit_learn(self):
        for threshold in (0.5, 0.2):
            expected = sklearn.metrics.accuracy_score(
                self.labels, self.p >= threshold, sample_weight=self.w
            )
            result = _result(metrics.Accuracy(threshold), *self.columns)
            self.assertAlmostEqual(result, expected, 12)
        self.assertEqual(_result(metrics.Accuracy(), [0.5], [1]), 1.0)
