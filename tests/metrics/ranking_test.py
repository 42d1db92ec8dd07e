"""Ranking metrics against scikit-learn and against loops over lists."""

import hypothesis
import numpy as np
import sklearn.metrics
from absl.testing import parameterized
from hypothesis import strategies as st

from monolith_tf import metrics
from monolith_tf import testing


def _result(metric, *columns):
    metric.update(*columns)
    return metric.result()


def _dcg(labels, k):
    return sum((2.0**y - 1) / np.log2(r + 2) for r, y in enumerate(labels) if r < k)


_VALUES = {
    "ndcg": lambda y, k: _dcg(y, k) / _dcg(sorted(y, reverse=True), k),
    "hr": lambda y, k: float(any(v > 0 for v in y[:k])),
    "recall": lambda y, k: sum(v > 0 for v in y[:k]) / sum(v > 0 for v in y),
    "mrr": lambda y, k: 1.0 / (1 + next(r for r, v in enumerate(y) if v > 0)),
}


def _reference(name, k, rows):
    values, weights = [], []
    for key in {row[3] for row in rows}:
        mine = [row for row in rows if row[3] == key]
        # Best first; of equals the less relevant first.
        labels = [y for _, y, _, _ in sorted(mine, key=lambda row: (-row[0], row[1]))]
        if any(labels):
            values.append(_VALUES[name](labels, k))
            weights.append(np.mean([w for _, _, w, _ in mine]))
    return np.average(values, weights=weights) if np.sum(weights) > 0 else np.nan


class RankingTest(testing.TestCase):
    @parameterized.parameters("ndcg", "hr", "recall", "mrr")
    @hypothesis.settings(deadline=None, max_examples=60)
    @hypothesis.given(
        rows=st.lists(
            st.tuples(
                st.sampled_from([-1.5, 0.0, 0.25, 0.5, 3.0]),
                st.integers(0, 3),
                st.sampled_from([0.0, 1.0, 2.5]),
                st.sampled_from(["u", "v", "long key"]),
            ),
            max_size=20,
        ),
        k=st.integers(1, 5),
    )
    def test_matches_definition(self, name, rows, k):
        metric = metrics.create(name if name == "mrr" else f"{name}@{k}")
        for row in rows:
            metric.update(*([column] for column in row))
        np.testing.assert_allclose(
            metric.result(), _reference(name, k, rows), rtol=1e-6
        )

    @parameterized.parameters(1, 5, 50, None)
    def test_ndcg_equals_scikit_learn_without_ties(self, k):
        scores = self.rng.permuted(np.tile(np.arange(30.0), (20, 1)), axis=1)
        labels = self.rng.integers(0, 4, (20, 30))
        keys = np.repeat(np.arange(20), 30)
        result = _result(metrics.NDCG(k), scores.ravel(), labels.ravel(), None, keys)
        # scikit-learn's gains are the labels themselves.
        expected = sklearn.metrics.ndcg_score(2.0**labels - 1.0, scores, k=k)
        self.assertAlmostEqual(result, expected)

    def test_ties_count_against_the_model(self):
        columns = [0.5] * 4, [1, 0, 0, 0], None, [0] * 4
        self.assertEqual(_result(metrics.HitRate(3), *columns), 0.0)
        self.assertEqual(_result(metrics.HitRate(4), *columns), 1.0)
        self.assertEqual(_result(metrics.MRR(), *columns), 0.25)
        self.assertAlmostEqual(_result(metrics.NDCG(4), *columns), 1 / np.log2(5))

    def test_lists_without_relevant_rows_are_left_out(self):
        columns = [0.9, 0.1, 0.8, 0.2], [0, 0, 1, 0], None, [1, 1, 2, 2]
        for metric in (metrics.NDCG(), metrics.HitRate(), metrics.MRR()):
            self.assertEqual(_result(metric, *columns), 1.0)
        self.assertTrue(np.isnan(_result(metrics.MRR(), [0.9], [0], None, [1])))

    @parameterized.parameters(metrics.NDCG, metrics.HitRate, metrics.Recall)
    def test_rejects_k(self, kind):
        with self.assertRaisesRegex(ValueError, r"`k` must be .* or None\. .*: k=0"):
            kind(k=0)

    def test_rejects_negative_labels(self):
        with self.assertRaisesRegex(
            ValueError, r"MRR needs `labels` .* not negative\. R"
        ):
            metrics.MRR().update([0.5], [-1], keys=[1])
