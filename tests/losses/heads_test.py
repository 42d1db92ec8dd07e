"""Sigmoid and softmax losses of a task, with sampling correction and mask."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import losses
from monolith_tf import testing

_LABELS = np.array([1.0, 0.0, 1.0, 0.0])
_LOGITS = np.array([0.4, -1.2, 2.0, 0.7])
_WEIGHTS = np.array([1.0, 2.0, 0.5, 3.0])


def _cross_entropy(labels, z):
    p = 1.0 / (1.0 + np.exp(-z))
    return -(labels * np.log(p) + (1.0 - labels) * np.log(1.0 - p))


class SigmoidLossTest(testing.TestCase):
    def test_sums_weighted_cross_entropies(self):
        terms = _cross_entropy(_LABELS, _LOGITS)
        self.assertAllClose(losses.sigmoid_loss(_LABELS, _LOGITS), terms.sum())
        loss = losses.sigmoid_loss(_LABELS, _LOGITS, weights=_WEIGHTS)
        self.assertAllClose(loss, terms @ _WEIGHTS)
        mean = losses.sigmoid_loss(_LABELS, _LOGITS, weights=_WEIGHTS, reduction="mean")
        self.assertAllClose(mean, terms @ _WEIGHTS / _WEIGHTS.sum())

    @parameterized.named_parameters(
        ("one_rate", 0.25),
        ("rate_per_example", np.array([0.1, 0.5, 1.0, 0.9])),
        ("rate_as_scalar_tensor", tf.constant(0.25)),
    )
    def test_negative_sampling_divides_the_odds(self, rate):
        odds = np.exp(_LOGITS) / np.asarray(rate)
        self.assertAllClose(
            losses.sigmoid_loss(_LABELS, _LOGITS, sample_rate=rate),
            _cross_entropy(_LABELS, np.log(odds)).sum(),
        )

    def test_minimum_is_at_the_true_logit_under_sampling(self):
        # True rate 0.2; a quarter of 80 negatives per 20 positives is kept.
        labels = np.array([1.0] * 20 + [0.0] * 20)
        logits = tf.fill([40], float(np.log(0.2 / 0.8)))
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = losses.sigmoid_loss(labels, logits, sample_rate=0.25)
        self.assertAllClose(tf.reduce_sum(tape.gradient(loss, logits)), 0.0, atol=1e-5)

    def test_minimum_is_at_the_true_logit_under_sample_bias(self):
        # True rate 0.2: 20 positives, 80 negatives and 20 early copies of positives.
        labels = np.array([1.0] * 20 + [0.0] * 100)
        logits = tf.fill([120], float(np.log(0.2 / 0.8)))
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = losses.sigmoid_loss(labels, logits, sample_bias=True)
        self.assertAllClose(tf.reduce_sum(tape.gradient(loss, logits)), 0.0, atol=1e-5)

    def test_clips_probability(self):
        logits = tf.constant([9.0, -9.0, 0.5])
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = losses.sigmoid_loss([0, 1, 1], logits, logit_clip_threshold=0.1)
        expected = -np.log(0.1) - np.log(0.1) + _cross_entropy(1.0, 0.5)
        self.assertAllClose(loss, expected)
        gradient = tape.gradient(loss, logits)
        self.assertAllClose(gradient, [0.0, 0.0, 1 / (1 + np.exp(-0.5)) - 1])

    def test_masked_examples_may_be_nan(self):
        mask = [True, False, True, False]
        bad = np.where(mask, 0.0, np.nan)
        logits = tf.constant(_LOGITS + bad, tf.float32)
        for reduction, divisor in (("sum", 1.0), ("mean", 1.5)):
            with tf.GradientTape() as tape:
                tape.watch(logits)
                loss = losses.sigmoid_loss(
                    _LABELS + bad,
                    logits,
                    weights=_WEIGHTS + bad,
                    sample_rate=0.5 + bad,
                    sample_bias=True,
                    mask=mask,
                    reduction=reduction,
                )
            corrected = np.log(1 / (1 + np.exp(-_LOGITS))) - np.log(0.5)
            terms = _cross_entropy(_LABELS, corrected) * _WEIGHTS
            self.assertAllClose(loss, (terms[0] + terms[2]) / divisor)
            gradient = tape.gradient(loss, logits)
            self.assertAllEqual(gradient.numpy()[[1, 3]], [0.0, 0.0])
            self.assertAllEqual(tf.math.is_finite(gradient), [True] * 4)

    @parameterized.named_parameters(("zero", 0.0), ("half", 0.5))
    def test_rejects_logit_clip_threshold(self, value):
        with self.assertRaisesRegex(
            ValueError, rf"`logit_clip.* below 0\.5\. .*{value}"
        ):
            losses.sigmoid_loss(_LABELS, _LOGITS, logit_clip_threshold=value)

    def test_rejects_sample_rate_zero(self):
        with self.assertRaisesRegex(
            ValueError, r"`sample_rate` must be above 0\. .*=0"
        ):
            losses.sigmoid_loss(_LABELS, _LOGITS, sample_rate=0)

    def test_rejects_sample_rate_and_mask_of_another_length(self):
        with self.assertRaisesRegex(ValueError, r"`sample_rate` must have the shape"):
            losses.sigmoid_loss(_LABELS, _LOGITS, sample_rate=np.ones(3))
        with self.assertRaisesRegex(ValueError, r"`mask` must have the shape"):
            losses.sigmoid_loss(_LABELS, _LOGITS, mask=np.ones(3))


class SigmoidHeadTest(testing.TestCase):
    def test_returns_loss_and_probabilities(self):
        arguments = {"sample_rate": 0.5, "logit_clip_threshold": 0.3}
        loss, predictions = losses.sigmoid_head(_LABELS, _LOGITS, **arguments)
        self.assertAllClose(loss, losses.sigmoid_loss(_LABELS, _LOGITS, **arguments))
        self.assertAllClose(predictions, 1 / (1 + np.exp(-_LOGITS)))

    def test_predicts_the_sampled_distribution_on_request(self):
        _, predictions = losses.sigmoid_head(
            _LABELS,
            _LOGITS,
            sample_rate=0.5,
            logit_clip_threshold=0.3,
            predict_before_correction=False,
        )
        odds = np.exp(_LOGITS) * 2
        self.assertAllClose(predictions, odds / (1 + odds))


class SoftmaxLossTest(testing.TestCase):
    logits = np.array([[0.1, 2.0, -1.0], [3.0, 0.0, 0.5]])
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    def test_sums_weighted_cross_entropies(self):
        labels = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
        terms = -(labels * np.log(self.probabilities)).sum(axis=1)
        self.assertAllClose(losses.softmax_loss(labels, self.logits), terms.sum())
        loss = losses.softmax_loss(
            labels, self.logits, weights=[1.0, 3.0], reduction="mean"
        )
        self.assertAllClose(loss, (terms[0] + 3 * terms[1]) / 4)

    def test_takes_class_numbers(self):
        loss = losses.softmax_loss(np.array([1, 2]), self.logits)
        expected = -np.log(self.probabilities[0, 1]) - np.log(self.probabilities[1, 2])
        self.assertAllClose(loss, expected)

    def test_masked_examples_may_be_nan(self):
        logits = tf.constant([[0.1, 2.0, -1.0], [np.nan] * 3])
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = losses.softmax_loss([1, 0], logits, mask=[1, 0])
        self.assertAllClose(loss, -np.log(self.probabilities[0, 1]))
        self.assertAllEqual(tape.gradient(loss, logits)[1], [0.0] * 3)

    def test_head_predicts_the_most_probable_class(self):
        loss, predictions = losses.softmax_head([1, 2], self.logits)
        self.assertAllClose(loss, losses.softmax_loss([1, 2], self.logits))
        self.assertAllEqual(predictions, [1, 0])
        self.assertEqual(predictions.dtype, tf.int64)

    def test_rejects_shapes(self):
        with self.assertRaisesRegex(ValueError, r"`logits` .*\[batch, classes\]\. Rec"):
            losses.softmax_loss([1, 2], [0.1, 0.2])
        with self.assertRaisesRegex(ValueError, r"`labels` must have the shape of"):
            losses.softmax_loss([[1.0, 0.0]], self.logits)
