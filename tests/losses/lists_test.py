"""Pairwise and listwise losses against loops over lists, in NumPy."""

import math

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import losses
from monolith_tf import testing

_RNG = np.random.default_rng(5)
# Lists of 4, 3, 2 and 1 examples, one of them without a positive label, shuffled; and
# two examples that are left out.
_GROUPS = np.array([30, 10, 10, 20, 30, 10, 20, 30, 10, 40, 10, 20])
_LABELS = np.array([0, 2, 0, 0, 0, 1, 0, 0, 3, 1, -1, -1], np.float64)
_LOGITS = _RNG.normal(size=12)
_WEIGHTS = _RNG.uniform(0.2, 2.0, size=12)
_TIED = np.array([1, 1, 0, 0, 1, 1, 0, 0, 0, 1, -1, -1], np.float64)


def _lists(labels, weights):
    """Returns the (labels, logits, weights) of each list, left-out rows removed."""
    rows = [np.flatnonzero((g == _GROUPS) & (labels >= 0)) for g in np.unique(_GROUPS)]
    return [(labels[r], _LOGITS[r], weights[r]) for r in rows]


def _dcg(labels, ranks):
    return np.sum((2.0**labels - 1.0) / np.log2(1.0 + ranks))


def _ideal_dcg(labels):
    return _dcg(np.sort(labels)[::-1], np.arange(1, len(labels) + 1))


def _pairwise(pair_loss, labels, weights, lambda_weight):
    total = pair_weights = 0.0
    for y, s, w in _lists(labels, weights):
        ranks = np.argsort(np.argsort(-s)) + 1.0
        for i in range(len(y)):
            for j in range(len(y)):
                if y[i] <= y[j]:
                    continue
                change = 1.0
                if lambda_weight:
                    swapped = ranks.copy()
                    swapped[[i, j]] = ranks[[j, i]]
                    change = abs(_dcg(y, ranks) - _dcg(y, swapped)) / _ideal_dcg(y)
                total += w[i] * change * pair_loss(s[i] - s[j])
                pair_weights += w[i]
    return total / pair_weights


def _listwise(list_loss, counts, labels, weights):
    chosen = [(y, s, w) for y, s, w in _lists(labels, weights) if counts(y)]
    values = [list_loss(y, s) for y, s, _ in chosen]
    return np.average(values, weights=[w.mean() for _, _, w in chosen])


def _list_softmax(y, s):
    return -np.sum(y / y.sum() * np.log(np.exp(s) / np.exp(s).sum()))


def _list_mle(y, s):
    return sum(np.log(np.exp(s[y <= y[i]]).sum()) - s[i] for i in range(len(y)))


def _approx_ndcg(y, s, temperature=0.1):
    ranks = [
        1 + sum(1 / (1 + np.exp((s[i] - s[j]) / temperature)) for j in others)
        for i in range(len(y))
        for others in [[j for j in range(len(y)) if j != i]]
    ]
    return 1.0 - _dcg(y, np.array(ranks)) / _ideal_dcg(y)


def _padded(column, fill):
    """Arranges a column as [lists, size], a list per row."""
    rows = [column[g == _GROUPS] for g in np.unique(_GROUPS)]
    size = max(map(len, rows))
    return np.stack([np.pad(r, (0, size - len(r)), constant_values=fill) for r in rows])


_PAIRWISE = (
    ("hinge", losses.pairwise_hinge_loss, lambda d: max(0.0, 1.0 - d)),
    ("logistic", losses.pairwise_logistic_loss, lambda d: np.log(1 + np.exp(-d))),
    ("soft", losses.pairwise_soft_zero_one_loss, lambda d: 1 / (1 + np.exp(d))),
)
_LISTWISE = (
    ("softmax", losses.list_softmax_loss, _list_softmax, np.any),
    ("mle", losses.list_mle_loss, _list_mle, lambda y: y.min() < y.max()),
    ("approx_ndcg", losses.approx_ndcg_loss, _approx_ndcg, np.any),
)
_ALL = [(name, loss) for name, loss, *_ in (*_PAIRWISE, *_LISTWISE)]


class PairwiseLossTest(testing.TestCase):
    @parameterized.named_parameters(*_PAIRWISE)
    def test_matches_definition(self, loss_fn, pair_loss):
        for labels in (_LABELS, _TIED):
            for lambda_weight in (None, "ndcg"):
                expected = _pairwise(pair_loss, labels, _WEIGHTS, lambda_weight)
                loss = loss_fn(
                    labels, _LOGITS, _WEIGHTS, _GROUPS, lambda_weight=lambda_weight
                )
                self.assertAllClose(loss, expected, rtol=1e-5)

    def test_worked_by_hand(self):
        # Pairs (a, b) and (a, c) with margins 1 and -1 in the first list, none in the
        # second: hinge losses 0 and 2.
        labels, logits = [1, 0, 0, 1], [1.0, 0.0, 2.0, 5.0]
        loss = losses.pairwise_hinge_loss(labels, logits, groups=["u", "u", "u", "v"])
        self.assertAllClose(loss, (0.0 + 2.0) / 2)

    def test_lambda_weights_get_no_gradient(self):
        logits = tf.constant([1.0, 0.5])
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = losses.pairwise_logistic_loss([0, 1], logits, lambda_weight="ndcg")
        # One pair, out of order: the change is 1 - 1 / log2(3), the slope sigmoid(0.5).
        slope = (1 - 1 / math.log2(3)) / (1 + math.exp(-0.5))
        self.assertAllClose(tape.gradient(loss, logits), [slope, -slope])

    @parameterized.named_parameters(*[c[:2] for c in _PAIRWISE])
    def test_without_a_pair_is_zero(self, loss_fn):
        self.assertEqual(loss_fn([1, 1], [0.3, 0.1]), 0.0)
        self.assertEqual(loss_fn([1, 0], [0.3, 0.1], groups=[1, 2]), 0.0)

    def test_rejects_lambda_weight(self):
        with self.assertRaisesRegex(
            ValueError, r"`lambda_weight` .*lambda_weight='map'"
        ):
            losses.pairwise_hinge_loss([1], [1], lambda_weight="map")


class ListwiseLossTest(testing.TestCase):
    @parameterized.named_parameters(*_LISTWISE)
    def test_matches_definition(self, loss_fn, list_loss, counts):
        for labels in (_LABELS, _TIED):
            expected = _listwise(list_loss, counts, labels, _WEIGHTS)
            loss = loss_fn(labels, _LOGITS, _WEIGHTS, _GROUPS)
            self.assertAllClose(loss, expected, rtol=1e-5)

    def test_mle_without_ties_is_the_plackett_luce_likelihood(self):
        # Best first, 2 then 0 then 1: e^3/(e^3+e+1) * e/(e+1).
        loss = losses.list_mle_loss([1, 0, 2], [1.0, 0.0, 3.0])
        e = math.e
        self.assertAllClose(loss, -math.log(e**3 / (e**3 + e + 1) * e / (e + 1)))

    def test_approx_ndcg_reaches_ndcg_at_low_temperature(self):
        # Ranks 2, 3, 1 for gains 3, 0, 1; the best order has gains 3, 1, 0.
        logits = tf.constant([2.0, 1.0, 3.0])
        loss = losses.approx_ndcg_loss([2, 0, 1], logits, temperature=1e-3)
        dcg, best = 1.0 + 3 / math.log2(3), 3.0 + 1 / math.log2(3)
        self.assertAllClose(loss, 1 - dcg / best)

    def test_rejects_temperature(self):
        with self.assertRaisesRegex(ValueError, r"`temperature` .* above 0\. .*=-1"):
            losses.approx_ndcg_loss([1], [1], temperature=-1)


class ListsTest(testing.TestCase):
    @parameterized.named_parameters(*_ALL)
    def test_padded_lists_equal_groups(self, loss_fn):
        loss = loss_fn(
            _padded(_LABELS, -1), _padded(_LOGITS, np.nan), _padded(_WEIGHTS, np.nan)
        )
        expected = loss_fn(_LABELS, _LOGITS, _WEIGHTS, _GROUPS)
        self.assertAllClose(loss, expected, rtol=1e-5)

    @parameterized.named_parameters(*_ALL)
    def test_a_column_of_which_only_a_run_tells_equals_a_vector(self, loss_fn):
        traced = tf.function(
            loss_fn, input_signature=[tf.TensorSpec([None, None], tf.float32)] * 3
        )
        columns = [c.astype(np.float32) for c in (_LABELS, _LOGITS, _WEIGHTS)]
        expected = loss_fn(*columns)
        self.assertNotEqual(expected, 0.0)
        found = traced(*(c[:, np.newaxis] for c in columns))
        self.assertAllClose(found, expected, rtol=1e-6)
        lists = [np.stack([c, c[::-1]]) for c in columns]
        self.assertAllClose(traced(*lists), loss_fn(*lists), rtol=1e-6)

    @parameterized.named_parameters(*_ALL)
    def test_column_equals_vector(self, loss_fn):
        columns = (_LABELS, _LOGITS, _WEIGHTS, _GROUPS)
        self.assertEqual(loss_fn(*(c[:, None] for c in columns)), loss_fn(*columns))

    @parameterized.named_parameters(*_ALL)
    def test_order_of_rows_does_not_matter(self, loss_fn):
        order = np.random.default_rng(0).permutation(12)
        columns = (_TIED, _LOGITS, _WEIGHTS, _GROUPS)
        shuffled = loss_fn(*(c[order] for c in columns))
        self.assertAllClose(shuffled, loss_fn(*columns), rtol=1e-5)

    @parameterized.named_parameters(*_ALL)
    def test_left_out_examples_get_no_gradient(self, loss_fn):
        logits = tf.constant(np.where(_LABELS < 0, np.nan, _LOGITS), tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = loss_fn(_LABELS, logits, _WEIGHTS, _GROUPS)
        gradient = tape.gradient(loss, logits).numpy()
        self.assertAllEqual(gradient[-2:], [0.0, 0.0])
        self.assertAllEqual(np.isfinite(gradient), [True] * 12)

    @parameterized.named_parameters(*_ALL)
    def test_rejects_shapes(self, loss_fn):
        with self.assertRaisesRegex(ValueError, r"`logits` .*\[lists, size\]\. Rec"):
            loss_fn(np.zeros([1, 1, 1]), np.zeros([1, 1, 1]))
        with self.assertRaisesRegex(ValueError, r"`labels` must .*\[batch, 1\]\. Rec"):
            loss_fn(np.zeros([2, 3]), np.zeros([2, 3]), groups=[1, 2])
        with self.assertRaisesRegex(ValueError, r"`groups` must have the shape"):
            loss_fn(np.zeros(3), np.zeros(3), groups=[1, 2])

    @parameterized.parameters(
        losses.pairwise_hinge_loss,
        losses.pairwise_logistic_loss,
        losses.pairwise_soft_zero_one_loss,
        losses.list_softmax_loss,
        losses.list_mle_loss,
        losses.approx_ndcg_loss,
    )
    def test_a_column_is_a_batch(self, loss):
        labels = tf.constant([1.0, 0.0, 0.0, 1.0])
        logits = tf.Variable([0.1, 0.4, -0.2, 0.3])
        with tf.GradientTape() as tape:
            column = loss(labels[:, tf.newaxis], logits[:, tf.newaxis])
        gradient = tape.gradient(column, logits)
        with tf.GradientTape() as tape:
            flat = loss(labels, logits)
        self.assertGreater(column, 0.0)
        self.assertAllEqual(column, flat)
        self.assertAllEqual(gradient, tape.gradient(flat, logits))
