"""AUC from histograms against the exact one."""

import hypothesis
import numpy as np
import sklearn.metrics
from absl.testing import parameterized
from hypothesis import strategies as st

from monolith_tf import metrics
from monolith_tf import testing


def _probabilities(logits):
    return (1.0 / (1.0 + np.exp(-logits))).astype(np.float32)


class HistogramAUCTest(testing.TestCase):
    @parameterized.named_parameters(
        ("wide", 2.0, 0.0), ("narrow", 0.3, 0.0), ("rare_events", 1.0, -6.0)
    )
    def test_is_within_1e_5_of_the_exact_value(self, spread, offset):
        labels = self.rng.random(100_000) < 0.05
        logits = self.rng.normal(offset + labels * spread, spread)
        weights = self.rng.exponential(size=labels.size).astype(np.float32)
        predictions = _probabilities(logits)
        exact = sklearn.metrics.roc_auc_score(
            labels, predictions, sample_weight=weights.astype(np.float64)
        )
        metric = metrics.HistogramAUC()
        for rows in np.array_split(np.arange(labels.size), 3):
            part = metrics.HistogramAUC()
            part.update(predictions[rows], labels[rows], weights[rows])
            metric.merge(part)
        self.assertAlmostEqual(metric.result(), exact, delta=1e-5)
        self.assertLessEqual(abs(metric.result() - exact), metric.error_bound())
        self.assertLess(metric.error_bound(), 1e-4)

    @hypothesis.settings(deadline=None, max_examples=60)
    @hypothesis.given(
        rows=st.lists(
            st.tuples(st.floats(0, 1, width=32), st.booleans()),
            min_size=2,
            max_size=30,
        )
    )
    def test_error_bound_holds_with_few_bins(self, rows):
        predictions, labels = zip(*rows, strict=True)
        hypothesis.assume(len(set(labels)) == 2)
        exact = sklearn.metrics.roc_auc_score(labels, predictions)
        metric = metrics.HistogramAUC(num_bins=16)
        metric.update(predictions, labels)
        self.assertLessEqual(abs(metric.result() - exact), metric.error_bound() + 1e-12)

    def test_saturated_predictions_tie_only_among_themselves(self):
        below_one = np.nextafter(np.float32(1), np.float32(0))
        metric = metrics.HistogramAUC()
        metric.update([0.0, 1e-10, below_one, 1.0, 1.0], [0, 1, 0, 1, 0])
        # Negatives 0, 1-, 1; positives 1e-10 and 1: 1 + 0 + 0 and 1 + 1 + 1/2 won.
        self.assertAlmostEqual(metric.result(), 3.5 / 6)
        self.assertAlmostEqual(metric.error_bound(), 0.5 / 6)

    def test_bound_is_nan_where_the_value_is(self):
        metric = metrics.HistogramAUC()
        metric.update([0.5], [1])
        self.assertTrue(np.isnan(metric.error_bound()))

    def test_rejects_num_bins(self):
        with self.assertRaisesRegex(ValueError, r"`num_bins` .* 2\. .*num_bins=1"):
            metrics.HistogramAUC(num_bins=1)
