import hypothesis
import numpy as np
import tensorflow as tf
from hypothesis import strategies

from monolith_tf import testing
from monolith_tf.layers.functional import pair_products

_sizes = strategies.integers(1, 7)


class PairProductsTest(testing.TestCase):
    @hypothesis.given(_sizes, _sizes, _sizes, _sizes, strategies.integers(1, 3))
    @hypothesis.settings(deadline=None, max_examples=10)
    def test_matches_definition(self, maps, fields, units, columns, blocks):
        x = self._normal(blocks, maps, columns)
        y = self._normal(blocks, fields, columns)
        kernel = self._normal(maps * fields, units)
        upstream = self._normal(blocks, units, columns)
        cube = tf.reshape(kernel, [maps, fields, units])
        self.assertAllClose(
            pair_products.contract(kernel, x, y),
            np.einsum("hjo,bhc,bjc->boc", cube, x, y),
        )
        dx, dy, dk = pair_products.contract_gradients(kernel, upstream, x, y)
        self.assertAllClose(dx, np.einsum("hjo,boc,bjc->bhc", cube, upstream, y))
        self.assertAllClose(dy, np.einsum("hjo,boc,bhc->bjc", cube, upstream, x))
        expected = np.einsum("boc,bhc,bjc->hjo", upstream, x, y)
        self.assertAllClose(dk, expected.reshape(kernel.shape))

    @hypothesis.given(_sizes, _sizes, _sizes, strategies.integers(1, 3))
    @hypothesis.settings(deadline=None, max_examples=10)
    def test_symmetric_case_matches_the_general_one(
        self, fields, units, columns, blocks
    ):
        x = self._normal(blocks, fields, columns)
        kernel = self._normal(fields * fields, units)
        upstream = self._normal(blocks, units, columns)
        self.assertAllClose(
            pair_products.contract(kernel, x), pair_products.contract(kernel, x, x)
        )
        of_x, of_kernel = pair_products.contract_gradients(kernel, upstream, x)
        left, right, expected = pair_products.contract_gradients(kernel, upstream, x, x)
        self.assertAllClose(of_x, left + right)
        self.assertAllClose(of_kernel, expected)

    def test_symmetric_case_multiplies_half_of_the_pairs(self):
        # 5 * 6 / 2 pairs; an even number of fields has its last ones twice.
        for fields, pairs in ((1, 1), (2, 4), (5, 15), (6, 24)):
            x = tf.ones([fields, 3])
            self.assertEqual(pair_products._pairs(x).shape, [pairs, 3])

    def _normal(self, *shape):
        return tf.constant(self.rng.normal(size=shape))
