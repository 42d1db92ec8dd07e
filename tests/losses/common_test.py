"""Tests of what all losses have in common."""

import functools

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import losses
from monolith_tf import testing

_LABELS = np.array([1, 0, 1, 0, 0, 1, 0, 1], np.float32)
_LOGITS = np.array([0.3, -0.8, 1.4, 0.9, -0.2, -1.1, 0.6, 0.1], np.float32)
_WEIGHTS = np.array([1, 2, 0.5, 1, 0, 3, 1, 1.5], np.float32)
_GROUPS = np.array([7, 7, 7, 5, 5, 5, 5, 9], np.int64)


def _batch_softmax(labels, logits, weights=None):
    # Queries and items made from the logits, so that it looks like the others.
    logits = tf.cast(logits, tf.float32)
    queries = tf.stack([logits, tf.ones_like(logits)], axis=1)
    items = tf.stack([logits**2 + 0.5, 1.0 - logits], axis=1)
    return losses.batch_softmax_loss(queries, items, None, weights)


def _softmax(labels, logits, weights=None):
    logits = tf.convert_to_tensor(logits)
    logits = tf.stack([logits, tf.zeros_like(logits)], axis=1)
    return losses.softmax_loss(tf.cast(labels, tf.int32), logits, weights=weights)


def _sigmoid(labels, logits, weights=None):
    return losses.sigmoid_loss(
        labels, logits, weights=weights, sample_rate=0.5, sample_bias=True
    )


def _grouped(loss_fn, labels, logits, weights=None, **kwargs):
    groups = tf.constant(_GROUPS)[: tf.shape(logits)[0]]
    return loss_fn(labels, logits, weights, groups, **kwargs)


_SMOOTH = {
    "log_loss": losses.log_loss,
    "mse": losses.mse,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
    "batch_softmax": _batch_softmax,
    "inbatch_auc": losses.inbatch_auc_loss,
    "logistic": functools.partial(_grouped, losses.pairwise_logistic_loss),
    "soft_zero_one": functools.partial(_grouped, losses.pairwise_soft_zero_one_loss),
    "list_softmax": functools.partial(_grouped, losses.list_softmax_loss),
    "list_mle": functools.partial(_grouped, losses.list_mle_loss),
    "approx_ndcg": functools.partial(
        _grouped, losses.approx_ndcg_loss, temperature=1.0
    ),
}
_ALL = {
    **_SMOOTH,
    "hinge": functools.partial(_grouped, losses.pairwise_hinge_loss),
    "logistic_ndcg": functools.partial(
        _grouped, losses.pairwise_logistic_loss, lambda_weight="ndcg"
    ),
}


def _value_and_gradient(loss_fn, labels, logits, weights=None):
    logits = tf.convert_to_tensor(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = loss_fn(labels, logits, weights)
    return loss, tape.gradient(loss, logits)


class CommonTest(testing.TestCase):
    @parameterized.named_parameters(*_SMOOTH.items())
    def test_gradient_matches_finite_differences(self, loss_fn):
        step = 0.01
        _, gradient = _value_and_gradient(loss_fn, _LABELS, _LOGITS, _WEIGHTS)
        expected = []
        for direction in step * np.eye(8, dtype=np.float32):
            above = loss_fn(_LABELS, _LOGITS + direction, _WEIGHTS)
            below = loss_fn(_LABELS, _LOGITS - direction, _WEIGHTS)
            expected.append((above - below) / (2 * step))
        self.assertAllClose(gradient, expected, rtol=5e-3, atol=2e-4)
        self.assertGreater(np.abs(gradient).max(), 1e-3)

    @parameterized.named_parameters(*_ALL.items())
    def test_empty_batch_gives_zero(self, loss_fn):
        empty = np.zeros([0], np.float32)
        loss, gradient = _value_and_gradient(loss_fn, empty, empty, empty)
        self.assertEqual(loss, 0.0)
        self.assertEqual(gradient.shape, [0])

    @parameterized.named_parameters(*_ALL.items())
    def test_weights_of_zero_give_zero(self, loss_fn):
        zero = np.zeros([8], np.float32)
        loss, gradient = _value_and_gradient(loss_fn, _LABELS, _LOGITS, zero)
        self.assertEqual(loss, 0.0)
        self.assertAllEqual(gradient, zero)

    @parameterized.named_parameters(*_ALL.items())
    def test_extreme_logits_stay_finite(self, loss_fn):
        for scale in (1e4, 1e8):
            logits = np.array([1, -1, -1, 1, 0, -1, 1, -1], np.float32) * scale
            loss, gradient = _value_and_gradient(loss_fn, _LABELS, logits)
            self.assertAllInRange(loss, -1.0, np.finfo(np.float32).max)
            self.assertAllInRange(gradient, -1e30, 1e30)

    @parameterized.named_parameters(*_ALL.items())
    def test_half_precision_is_computed_in_float32(self, loss_fn):
        exact = np.round(_LOGITS * 8) / 8  # the same number in both precisions
        expected = loss_fn(_LABELS, exact)
        for dtype in (tf.float16, tf.bfloat16):
            loss, gradient = _value_and_gradient(
                loss_fn, tf.cast(_LABELS, dtype), tf.cast(exact, dtype)
            )
            self.assertEqual(loss.dtype, tf.float32)
            self.assertEqual(gradient.dtype, dtype)
            self.assertEqual(loss.shape, [])
            self.assertAllClose(loss, expected, rtol=1e-6)

    @parameterized.named_parameters(*_ALL.items())
    def test_graph_with_unknown_batch_equals_eager(self, loss_fn):
        traced = tf.function(
            functools.partial(_value_and_gradient, loss_fn),
            input_signature=[tf.TensorSpec([None], tf.float32)] * 3,
        )
        for size in (8, 5):
            columns = [c[:size] for c in (_LABELS, _LOGITS, _WEIGHTS)]
            self.assertAllClose(
                traced(*columns), _value_and_gradient(loss_fn, *columns), atol=1e-6
            )

    @parameterized.named_parameters(*_ALL.items())
    def test_compiled_equals_eager(self, loss_fn):
        compiled = tf.function(
            functools.partial(_value_and_gradient, loss_fn), jit_compile=True
        )
        columns = (_LABELS, _LOGITS, _WEIGHTS)
        self.assertAllClose(
            compiled(*(tf.constant(c) for c in columns)),
            _value_and_gradient(loss_fn, *columns),
            rtol=1e-5,
            atol=1e-6,
        )

    @parameterized.named_parameters(
        ("log_loss", losses.log_loss),
        ("mse", losses.mse),
        ("sigmoid", losses.sigmoid_loss),
        ("inbatch_auc", losses.inbatch_auc_loss),
    )
    def test_column_and_vector_are_aligned_not_broadcast(self, loss_fn):
        weights = _WEIGHTS[:, None]
        mixed = loss_fn(_LABELS[:, None], _LOGITS, weights=weights)
        self.assertEqual(mixed, loss_fn(_LABELS, _LOGITS, weights=_WEIGHTS))

    @parameterized.named_parameters(
        ("log_loss", losses.log_loss, "labels"),
        ("mse", losses.mse, "labels"),
        ("sigmoid", losses.sigmoid_loss, "labels"),
        ("inbatch_auc", losses.inbatch_auc_loss, "labels"),
        ("logistic", losses.pairwise_logistic_loss, "labels"),
        ("list_softmax", losses.list_softmax_loss, "labels"),
    )
    def test_rejects_labels_and_weights_of_another_length(self, loss_fn, name):
        with self.assertRaisesRegex(ValueError, rf"`{name}` must .* \(8,\)\. Rec.*7"):
            loss_fn(_LABELS[:7], _LOGITS)
        with self.assertRaisesRegex(ValueError, r"`weights` must have the shape"):
            loss_fn(_LABELS, _LOGITS, weights=_WEIGHTS[:7])

    def test_rejects_a_matrix_where_a_column_is_expected(self):
        with self.assertRaisesRegex(ValueError, r"`logits` must .* \[batch, 1\]\. Rec"):
            losses.log_loss(_LABELS, np.zeros([8, 2]))

    @parameterized.named_parameters(
        ("sigmoid", losses.sigmoid_loss), ("inbatch_auc", losses.inbatch_auc_loss)
    )
    def test_rejects_unknown_reduction(self, loss_fn):
        with self.assertRaisesRegex(
            ValueError, r"`reduction` must be .*: reduction=''"
        ):
            loss_fn(_LABELS, _LOGITS, reduction="")
