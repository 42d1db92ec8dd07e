"""Ranks of held-out items, by the NCF protocol."""

import heapq
import math

import numpy as np

from monolith_tf import metrics
from monolith_tf import testing


class LeaveOneOutTest(testing.TestCase):
    def test_worked_by_hand(self):
        # Three of four candidates score higher: rank 3, in the first 4 but not 3.
        ranks = metrics.leave_one_out_ranks([[0.2, 0.1, 0.9, 0.3, 0.8]])
        self.assertAllEqual(ranks, [3])
        ndcg = np.where(ranks < 4, math.log(2) / np.log(ranks + 2), 0.0).mean()
        self.assertAlmostEqual(ndcg, 0.430676558073)

    def test_ties_and_nan_go_against_the_held_out_item(self):
        nan = np.nan
        ranks = metrics.leave_one_out_ranks(
            [[0.5, 0.5, 0.5, 0.1], [nan, 0.1, nan, -np.inf], [0.1, nan, 0.2, nan]]
        )
        self.assertAllEqual(ranks, [2, 3, 1])

    def test_items_are_looked_up_as_in_a_dict(self):
        items = self.rng.integers(0, 60, (200, 40))  # many repetitions
        scores_of = self.rng.normal(size=(200, 60))
        scores = np.take_along_axis(scores_of, items, axis=1)
        ranks = metrics.leave_one_out_ranks(scores, items)
        for row, rank in enumerate(ranks):
            table = {}
            # The protocol puts the held-out item last, so that ties go against it.
            for item, score in zip(
                np.roll(items[row], -1), np.roll(scores[row], -1), strict=True
            ):
                table[item] = score
            order = heapq.nlargest(len(table), table, key=table.get)
            self.assertEqual(order.index(items[row, 0]), rank)
        self.assertFalse(np.array_equal(ranks, metrics.leave_one_out_ranks(scores)))

    def test_equals_ranking_metrics_without_repetitions(self):
        scores = np.round(self.rng.normal(size=(50, 30)), 1).astype(np.float32)  # ties
        ranks = metrics.leave_one_out_ranks(scores)
        labels = np.tile(np.arange(30) == 0, 50)
        columns = scores.ravel(), labels, None, np.repeat(np.arange(50), 30)
        hit_rate, ndcg = metrics.HitRate(10), metrics.NDCG(10)
        hit_rate.update(*columns)
        ndcg.update(*columns)
        self.assertAlmostEqual(hit_rate.result(), np.mean(ranks < 10))
        gains = np.where(ranks < 10, np.log(2) / np.log(ranks + 2), 0.0)
        self.assertAlmostEqual(ndcg.result(), gains.mean())

    def test_rejects_shapes(self):
        with self.assertRaisesRegex(ValueError, r"`scores` .* 1 \+ candidates\]\. Rec"):
            metrics.leave_one_out_ranks([0.1, 0.2])
        with self.assertRaisesRegex(ValueError, r"`items` must have .*\(1, 2\)\. Rec"):
            metrics.leave_one_out_ranks([[0.1, 0.2]], [[1, 2, 3]])
