import numpy as np
import tensorflow as tf

from monolith_tf import testing
from monolith_tf.layers.parts import sequences


class MaskedSoftmaxTest(testing.TestCase):
    def test_is_a_softmax_of_the_valid_entries(self):
        scores = self.rng.normal(size=(3, 4)).astype("float32")
        mask = np.array([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 1, 0]], bool)
        shares = sequences.masked_softmax(tf.constant(scores), tf.constant(mask))
        exponentials = np.exp(scores) * mask
        self.assertAllClose(shares, exponentials / exponentials.sum(1, keepdims=True))
        exponentials = np.exp(scores)
        shares = sequences.masked_softmax(tf.constant(scores), None)
        self.assertAllClose(shares, exponentials / exponentials.sum(1, keepdims=True))

    def test_extreme_scores_and_empty_rows_stay_finite(self):
        # A masked score far above the valid ones must not drown them.
        scores = tf.constant([[1e30, 3.0, 3.0], [-1e30, 0.0, 1e30], [5.0, 6.0, 7.0]])
        mask = tf.constant([[False, True, True], [True, False, True], [False] * 3])
        with tf.GradientTape() as tape:
            tape.watch(scores)
            shares = sequences.masked_softmax(scores, mask)
            total = tf.reduce_sum(shares * [1.0, 2.0, 3.0])
        self.assertAllClose(shares, [[0.0, 0.5, 0.5], [0.0, 0.0, 1.0], [0.0] * 3])
        gradient = tape.gradient(total, scores)
        # Shares of one half that stand before 2 and 3: 0.5 * (2 - 2.5).
        self.assertAllClose(gradient, [[0.0, -0.25, 0.25], [0.0] * 3, [0.0] * 3])

    def test_no_entries(self):
        shares = sequences.masked_softmax(tf.ones([2, 0]), tf.ones([2, 0], tf.bool))
        self.assertEqual(shares.shape, (2, 0))
