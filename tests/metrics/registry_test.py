"""Tests of metrics by name."""

import numpy as np
from absl.testing import parameterized

from monolith_tf import metrics
from monolith_tf import testing


class RegistryTest(testing.TestCase):
    def test_every_name_makes_a_new_metric(self):
        for name in metrics.NAMES:
            one, other = metrics.create(name), metrics.create(name)
            self.assertIsInstance(one, metrics.Metric)
            self.assertIsNot(one, other)

    def test_names_have_the_expected_kinds(self):
        kinds = {name: type(metrics.create(name)).__name__ for name in metrics.NAMES}
        self.assertEqual(
            kinds,
            {
                "accuracy": "Accuracy",
                "auc": "AUC",
                "calibration": "Calibration",
                "gauc": "GAUC",
                "histogram_auc": "HistogramAUC",
                "hr@10": "HitRate",
                "log_loss": "LogLoss",
                "mrr": "MRR",
                "mse": "MSE",
                "ndcg@10": "NDCG",
                "normalized_entropy": "NormalizedEntropy",
                "recall@10": "Recall",
                "rmse": "RMSE",
            },
        )

    def test_any_k(self):
        metric = metrics.create("hr@3")
        self.assertEqual(metric.k, 3)
        self.assertEqual(metrics.create("ndcg@125").k, 125)

    @parameterized.parameters(
        ("auc", True), ("ndcg@7", True), ("log_loss", False), ("rmse", False)
    )
    def test_better_direction_agrees_with_a_better_model(self, name, higher):
        self.assertEqual(metrics.is_higher_better(name), higher)
        good, bad = metrics.create(name), metrics.create(name)
        labels, keys = [1, 0, 1, 0], [0, 0, 1, 1]
        good.update([0.9, 0.2, 0.7, 0.1], labels, keys=keys)
        bad.update([0.3, 0.6, 0.2, 0.8], labels, keys=keys)
        self.assertEqual(good.result() > bad.result(), higher)

    def test_keys_are_needed_by_metrics_of_groups(self):
        needing = [name for name in metrics.NAMES if metrics.needs_keys(name)]
        self.assertEqual(needing, ["gauc", "hr@10", "mrr", "ndcg@10", "recall@10"])

    def test_calibration_has_no_direction(self):
        with self.assertRaisesRegex(ValueError, r"name='calibration', .* best at 1\. "):
            metrics.is_higher_better("calibration")

    @parameterized.parameters(
        ("acu", "auc"),
        ("ndcg", "ndcg@10"),
        ("ndcg@0", "ndcg@10"),
        ("hr@x", "hr@10"),
        ("auc@3", "auc"),
        ("mmr@3", None),
    )
    def test_rejects_unknown_names(self, name, hint):
        for function in (metrics.create, metrics.needs_keys):
            with self.assertRaisesRegex(
                ValueError,
                rf"must be one of accuracy, auc, .*Received: name='{name}'\."
                + (f" Did you mean `{hint}`" if hint else ""),
            ):
                function(name)

    def test_uses_numpy_alone(self):
        self.assertIsInstance(metrics.create("auc").result(), float)
        self.assertTrue(np.isnan(metrics.create("auc").result()))
