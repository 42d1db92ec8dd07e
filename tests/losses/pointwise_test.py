"""Log loss and squared error against their definitions."""

import math

import tensorflow as tf

from monolith_tf import losses
from monolith_tf import testing


class LogLossTest(testing.TestCase):
    def test_is_the_weighted_mean_of_the_cross_entropies(self):
        # sigmoid(log 3) = 3/4; the losses are log 4/3 and log 4.
        logits = [math.log(3.0), math.log(3.0)]
        third = math.log(4.0 / 3.0)
        self.assertAllClose(
            losses.log_loss([1, 0], logits), (third + math.log(4.0)) / 2
        )
        self.assertAllClose(
            losses.log_loss([1, 0], logits, [3, 1]), (3 * third + math.log(4.0)) / 4
        )

    def test_takes_soft_labels(self):
        self.assertAllClose(losses.log_loss([0.25], [0.0]), math.log(2.0))

    def test_is_linear_in_extreme_logits(self):
        self.assertAllClose(losses.log_loss([0.0, 1.0], [1e6, 1e6]), 5e5)


class MseTest(testing.TestCase):
    def test_is_the_weighted_mean_of_the_squares(self):
        predictions = tf.constant([1.0, 3.0])
        self.assertAllClose(losses.mse([0, 1], predictions), (1 + 4) / 2)
        self.assertAllClose(losses.mse([0, 1], predictions, [3, 1]), (3 + 4) / 4)
