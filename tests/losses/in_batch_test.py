"""In-batch softmax and in-batch AUC loss against double loops."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import losses
from monolith_tf import testing

_RNG = np.random.default_rng(11)
_QUERIES = _RNG.normal(size=(5, 3))
_ITEMS = _RNG.normal(size=(5, 3))
_INTERVALS = np.array([0.0, 1.0, 4.0, 20.0, 2.5])
_WEIGHTS = np.array([1.0, 0.0, 2.0, 0.5, 1.5])


def _batch_softmax(queries, items, intervals, weights, ids, normalize, temperature):
    total = 0.0
    for i, query in enumerate(queries):
        scores = []
        for j, item in enumerate(items):
            if i != j and ids[i] == ids[j]:
                continue
            score = query @ item
            if normalize:
                score /= np.linalg.norm(query) * np.linalg.norm(item)
            # Items that are drawn often are in more batches: divide by that chance.
            scores.append(np.exp(score / temperature) * max(intervals[j], 1.0))
            if i == j:
                own = scores[-1]
        total -= weights[i] * np.log(own / np.sum(scores))
    return total


class BatchSoftmaxLossTest(testing.TestCase):
    @parameterized.product(normalize=[True, False], temperature=[1.0, 0.2])
    def test_matches_definition(self, normalize, temperature):
        for ids in (np.arange(5), np.array([3, 1, 3, 3, 2])):
            loss = losses.batch_softmax_loss(
                _QUERIES,
                _ITEMS,
                _INTERVALS,
                _WEIGHTS,
                item_ids=ids,
                normalize=normalize,
                temperature=temperature,
            )
            expected = _batch_softmax(
                _QUERIES, _ITEMS, _INTERVALS, _WEIGHTS, ids, normalize, temperature
            )
            self.assertAllClose(loss, expected, rtol=1e-5)

    def test_mean_divides_by_weights(self):
        arguments = (_QUERIES, _ITEMS, _INTERVALS, _WEIGHTS)
        mean = losses.batch_softmax_loss(*arguments, reduction="mean")
        self.assertAllClose(mean, losses.batch_softmax_loss(*arguments) / 5.0)

    def test_no_intervals_means_no_correction(self):
        plain = losses.batch_softmax_loss(_QUERIES, _ITEMS)
        equal = losses.batch_softmax_loss(_QUERIES, _ITEMS, np.full(5, 7.0))
        self.assertAllClose(plain, equal, rtol=1e-6)

    def test_low_temperature_stays_finite(self):
        queries = tf.constant(_QUERIES, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(queries)
            loss = losses.batch_softmax_loss(queries, -queries, temperature=1e-3)
        # The worst case per row is the distance 2 / temperature.
        self.assertAllInRange(loss, 0.0, 5 * 2000.0 + 10.0)
        self.assertAllInRange(tape.gradient(loss, queries), -1e5, 1e5)

    def test_intervals_get_no_gradient(self):
        intervals = tf.constant(_INTERVALS, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(intervals)
            loss = losses.batch_softmax_loss(_QUERIES, _ITEMS, intervals)
        self.assertIsNone(tape.gradient(loss, intervals))

    def test_rejects_arguments(self):
        with self.assertRaisesRegex(ValueError, r"`temperature` .* above 0\. .*=0"):
            losses.batch_softmax_loss(_QUERIES, _ITEMS, temperature=0)
        with self.assertRaisesRegex(ValueError, r"`queries` .*\[batch, dim\]\. Rec"):
            losses.batch_softmax_loss(_QUERIES[0], _ITEMS)
        with self.assertRaisesRegex(ValueError, r"`items` must have the shape of"):
            losses.batch_softmax_loss(_QUERIES, _ITEMS[:4])
        with self.assertRaisesRegex(ValueError, r"`item_intervals` must have the"):
            losses.batch_softmax_loss(_QUERIES, _ITEMS, _INTERVALS[:4])
        with self.assertRaisesRegex(ValueError, r"`item_ids` must have the shape"):
            losses.batch_softmax_loss(_QUERIES, _ITEMS, item_ids=[1, 2])


class InbatchAucLossTest(testing.TestCase):
    labels = np.array([1.0, 0.0, 0.0, 1.0, -1.0])
    logits = np.array([0.5, -0.2, -0.4, 0.8, 0.6])

    def _pairs(self):
        for i in np.flatnonzero(self.labels > 0):
            for j in np.flatnonzero(self.labels <= 0):
                yield i, j, self.logits[i] - self.logits[j]

    @parameterized.product(weighted=[True, False], reduction=["sum", "mean"])
    def test_matches_definition(self, weighted, reduction):
        weights = _WEIGHTS if weighted else np.ones(5)
        loss = losses.inbatch_auc_loss(
            self.labels,
            self.logits,
            weights if weighted else None,
            reduction=reduction,
        )
        terms = [
            (w, w * np.log(1 + np.exp(-margin)))
            for i, j, margin in self._pairs()
            for w in [weights[i] * weights[j]]
        ]
        pair_weights, values = np.sum(terms, axis=0)
        divisor = pair_weights if reduction == "mean" else 1.0
        self.assertAllClose(loss, values / divisor)

    @parameterized.named_parameters(("plain", 1.0), ("less_on_negatives", 0.25))
    def test_neg_weight_scales_the_gradient_of_negatives(self, neg_weight):
        logits = tf.constant(self.logits, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = losses.inbatch_auc_loss(self.labels, logits, neg_weight=neg_weight)
        self.assertAllClose(loss, losses.inbatch_auc_loss(self.labels, logits))
        expected = np.zeros(5)
        for i, j, margin in self._pairs():
            slope = 1.0 / (1.0 + np.exp(margin))
            expected[i] -= slope
            expected[j] += neg_weight * slope
        self.assertAllClose(tape.gradient(loss, logits), expected)

    def test_masked_examples_may_be_nan(self):
        logits = tf.constant([0.5, np.nan, -0.4, 0.8, np.nan])
        labels = [1.0, np.nan, 0.0, 1.0, 0.0]
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = losses.inbatch_auc_loss(labels, logits, mask=[1, 0, 1, 1, 0])
        expected = np.log(1 + np.exp(-0.9)) + np.log(1 + np.exp(-1.2))
        self.assertAllClose(loss, expected)
        gradient = tape.gradient(loss, logits).numpy()
        self.assertAllEqual(gradient[[1, 4]], [0.0, 0.0])
        self.assertAllEqual(np.isfinite(gradient), [True] * 5)

    def test_equals_pairwise_logistic_loss_of_one_list(self):
        labels = np.maximum(self.labels, 0)
        self.assertAllClose(
            losses.inbatch_auc_loss(labels, self.logits, reduction="mean"),
            losses.pairwise_logistic_loss(labels, self.logits),
        )

    def test_without_a_pair_is_zero(self):
        for reduction in ("sum", "mean"):
            loss = losses.inbatch_auc_loss([1, 1], [0.3, 2.0], reduction=reduction)
            self.assertEqual(loss, 0.0)

    @parameterized.named_parameters(("zero", 0.0), ("above_one", 1.5))
    def test_rejects_neg_weight(self, neg_weight):
        with self.assertRaisesRegex(
            ValueError, rf"`neg_weight` .* 1\. .*={neg_weight}"
        ):
            losses.inbatch_auc_loss([1.0], [1.0], neg_weight=neg_weight)

    def test_rejects_mask_of_another_length(self):
        with self.assertRaisesRegex(ValueError, r"`mask` must have the shape"):
            losses.inbatch_auc_loss(self.labels, self.logits, mask=[1, 0])
