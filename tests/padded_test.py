"""Tests of padded lists."""

import tensorflow as tf

from monolith_tf import testing
from monolith_tf.padded import Padded


class PaddedTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        self.lists = Padded(
            tf.constant([[1, 2, 3], [4, 9, 9], [9, 9, 9]], tf.int64),
            tf.constant([3, 1, 0], tf.int64),
        )

    def test_to_ragged(self):
        self.assertEqual(self.lists.to_ragged().to_list(), [[1, 2, 3], [4], []])

    def test_mask(self):
        expected = [[True, True, True], [True, False, False], [False] * 3]
        self.assertAllEqual(self.lists.mask(), expected)

    def test_cut(self):
        self.assertEqual(self.lists.cut(2).to_ragged().to_list(), [[1, 2], [4], []])

    def test_resized(self):
        for width, expected in ((2, [[1, 2], [4], []]), (5, [[1, 2, 3], [4], []])):
            resized = self.lists.resized(width)
            self.assertEqual(resized.values.shape, [3, width])
            self.assertEqual(resized.to_ragged().to_list(), expected)
