"""AUC and GAUC against scikit-learn and against counting pairs."""

import hypothesis
import numpy as np
import sklearn.metrics
from absl.testing import parameterized
from hypothesis import strategies as st

from monolith_tf import metrics
from monolith_tf import testing

_ROWS = st.lists(
    st.tuples(
        st.sampled_from([-0.0, 0.0, 0.1, 0.5, 0.5000001, 2.0, np.inf, -np.inf]),
        st.booleans(),
        st.sampled_from([0.0, 0.25, 1.0, 7.0]),
    ),
    max_size=20,
)


def _count_pairs(predictions, labels, weights):
    won = total = 0.0
    for p, y, w in zip(predictions, labels, weights, strict=True):
        for q, z, v in zip(predictions, labels, weights, strict=True):
            if y and not z:
                total += w * v
                won += w * v * ((p > q) + 0.5 * (p == q))
    return won / total if total else np.nan


def _result(metric, *columns, **named):
    metric.update(*columns, **named)
    return metric.result()


class AUCTest(testing.TestCase):
    @hypothesis.settings(deadline=None, max_examples=150)
    @hypothesis.given(rows=_ROWS)
    def test_counts_pairs(self, rows):
        predictions, labels, weights = np.array(rows, np.float64).reshape(-1, 3).T
        predictions = predictions.astype(np.float32)
        ones = np.ones_like(weights)
        np.testing.assert_allclose(
            _result(metrics.AUC(), predictions, labels, weights),
            _count_pairs(predictions, labels, weights),
            rtol=1e-12,
        )
        np.testing.assert_allclose(
            _result(metrics.AUC(), predictions, labels),
            _count_pairs(predictions, labels, ones),
            rtol=1e-15,
        )

    @parameterized.named_parameters(("few_ties", 1e-6), ("many_ties", 0.05))
    def test_equals_scikit_learn(self, grain):
        labels = self.rng.random(20_000) < 0.1
        scores = np.round(self.rng.normal(labels * 0.7) / grain) * grain
        scores = scores.astype(np.float32)
        weights = self.rng.exponential(size=20_000).astype(np.float32)
        self.assertAlmostEqual(
            _result(metrics.AUC(), scores, labels),
            sklearn.metrics.roc_auc_score(labels, scores),
            places=12,
        )
        self.assertAlmostEqual(
            _result(metrics.AUC(), scores, labels, weights),
            sklearn.metrics.roc_auc_score(
                labels, scores, sample_weight=weights.astype(np.float64)
            ),
            places=12,
        )

    def test_batches_with_and_without_weights_mix(self):
        metric = metrics.AUC()
        metric.update([0.1, 0.9], [1, 0])
        metric.update([0.5], [0], weights=[3.0])
        metric.update([0.7], [1], weights=[2.0])
        expected = _count_pairs([0.1, 0.9, 0.5, 0.7], [1, 0, 0, 1], [1, 1, 3, 2])
        self.assertAlmostEqual(metric.result(), expected)

    @parameterized.named_parameters(
        ("positives", [1, 1], None),
        ("negatives", [0, 0], None),
        ("positives_by_weight", [1, 0], [1.0, 0.0]),
        ("negatives_by_weight", [1, 0], [0.0, 1.0]),
    )
    def test_one_class_is_nan(self, labels, weights):
        self.assertTrue(np.isnan(_result(metrics.AUC(), [0.1, 0.9], labels, weights)))


class GAUCTest(testing.TestCase):
    @parameterized.named_parameters(("integers", np.int64), ("strings", str))
    def test_is_the_impression_weighted_mean_of_the_users_aucs(self, key_type):
        users = self.rng.exponential(15, 900).astype(np.int64)  # busy and rare ones
        labels = self.rng.random(900) < 0.3
        scores = np.round(self.rng.random(900), 2).astype(np.float32)  # ties
        weights = self.rng.choice([0.0, 1.0, 2.5], 900)
        for w in (np.ones(900), weights):
            areas, impressions = [], []
            for user in np.unique(users):
                mine = users == user
                area = _count_pairs(scores[mine], labels[mine], w[mine])
                if not np.isnan(area):
                    areas.append(area)
                    impressions.append(w[mine].sum())
            self.assertLess(len(areas), len(np.unique(users)))
            result = _result(metrics.GAUC(), scores, labels, w, users.astype(key_type))
            expected = np.average(areas, weights=impressions)
            self.assertAlmostEqual(result, expected, places=12)

    def test_worked_by_hand(self):
        # User a: AUC 1 over 3 impressions. User b: AUC 0.5, tied, over 2. c: no AUC.
        users = np.array([b"a", b"b", b"a", b"b", b"c", b"a"], object)
        labels, scores = [1, 0, 0, 1, 1, 0], [0.8, 0.4, 0.2, 0.4, 0.0, 0.5]
        result = _result(metrics.GAUC(), scores, labels, keys=users)
        self.assertAlmostEqual(result, (3 * 1.0 + 2 * 0.5) / 5)

    def test_one_user_equals_auc(self):
        labels, scores = [1, 0, 1, 0], [0.3, 0.3, 0.9, 0.5]
        result = _result(metrics.GAUC(), scores, labels, keys=[8, 8, 8, 8])
        self.assertAlmostEqual(result, _result(metrics.AUC(), scores, labels))

    def test_large_keys_stay_apart(self):
        keys = np.array([2**62, 2**62 + 1, 2**62, 2**62 + 1])
        result = _result(metrics.GAUC(), [0.9, 0.1, 0.5, 0.3], [1, 1, 0, 0], keys=keys)
        self.assertEqual(result, 0.5)  # one user in order, one in reverse

    def test_users_with_one_class_are_nan(self):
        result = _result(metrics.GAUC(), [0.9, 0.1], [1, 0], keys=[1, 2])
        self.assertTrue(np.isnan(result))
