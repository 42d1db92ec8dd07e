"""Tests of initial values against an implementation in Python integers."""

import hashlib
import statistics

import numpy as np
import scipy.stats
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import testing
from monolith_tf.embedding import initializer_spec
from monolith_tf.embedding import initializers

IDS = (0, 1, 2, -1, 2**62 + 5, -(2**63), 2**63 - 1, 7 << 48)
KEYS = (0, 1, -1, 2**63 - 1, -(2**63), 123456789)


class SplitMix64:
    """The generator as Steele, Lea and Flood publish it (OOPSLA 2014, figure 17)."""

    def __init__(self, state):
        self.state = state % 2**64

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) % 2**64
        return self.finish(self.state)

    @staticmethod
    def finish(z):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        return z ^ (z >> 31)


def outputs(feature_id, key, dim):
    generator = SplitMix64(SplitMix64.finish((feature_id ^ key) % 2**64))
    return [generator.next() for _ in range(dim)]


def draw(spec, ids, dim=8, key=11):
    return initializers.initial_values(
        spec, dim, tf.constant(ids, tf.int64), key
    ).numpy()


class InitializersTest(testing.TestCase):
    def test_reference_generator_gives_the_published_numbers(self):
        # The test vector of the generator for state 1234567.
        generator = SplitMix64(1234567)
        self.assertEqual(
            [generator.next() for _ in range(2)],
            [6457827717110365317, 3203168211198807973],
        )

    @parameterized.parameters(*KEYS)
    def test_uniform_equals_integer_arithmetic_bit_for_bit(self, key):
        spec = initializer_spec.UniformSpec(minval=-0.3, maxval=0.5)
        unit = [[o >> 40 for o in outputs(i, key, 8)] for i in IDS]
        unit = np.array(unit, np.float32) / np.float32(2**24)
        expected = np.float32(-0.3) + np.float32(0.8) * unit
        np.testing.assert_array_equal(draw(spec, IDS, key=key), expected)

    @parameterized.parameters("normal", "truncated_normal")
    def test_normal_is_the_quantile_of_the_same_bits(self, name):
        spec = initializer_spec.initializer(name, mean=2.0, stddev=3.0)
        cut = statistics.NormalDist().cdf(-2.0) if name == "truncated_normal" else 0.0
        quantile = statistics.NormalDist().inv_cdf
        expected = [
            [
                2.0 + 3.0 * quantile(cut + (1 - 2 * cut) * ((o >> 12) + 0.5) / 2**52)
                for o in outputs(i, 5, 8)
            ]
            for i in IDS
        ]
        self.assertAllClose(draw(spec, IDS, key=5), expected, rtol=1e-6, atol=1e-6)

    def test_constants(self):
        self.assertAllEqual(draw(initializer_spec.ZerosSpec(), IDS), np.zeros([8, 8]))
        values = draw(initializer_spec.ConstantSpec(value=0.3), IDS)
        self.assertAllEqual(values, np.full([8, 8], np.float32(0.3)))

    @parameterized.parameters("zeros", "uniform", "normal", "truncated_normal")
    def test_a_row_does_not_depend_on_its_place_or_company(self, name):
        spec = initializer_spec.initializer(name)
        ids = self.rng.integers(0, 2**62, 103)
        whole = draw(spec, ids)
        np.testing.assert_array_equal(draw(spec, ids[::-1])[::-1], whole)
        single = np.concatenate([draw(spec, ids[i : i + 1]) for i in range(len(ids))])
        np.testing.assert_array_equal(single, whole)
        # A wider slice begins with the same numbers.
        np.testing.assert_array_equal(draw(spec, ids, dim=11)[:, :8], whole)

    def test_rows_may_differ_in_parameters_and_key(self):
        specs = [
            initializer_spec.UniformSpec(minval=-1.0, maxval=1.0),
            initializer_spec.ConstantSpec(value=0.3),
            initializer_spec.ZerosSpec(),
            initializer_spec.UniformSpec(minval=2.0, maxval=5.0),
        ]
        keys = [3, -4, 5, 2**63 - 1]
        self.assertEqual({initializers.kind(spec) for spec in specs}, {"uniform"})
        numbers = [initializers.parameters(spec) for spec in specs]
        columns = {
            name: tf.constant([[row[name]] for row in numbers], tf.float32)
            for name in ("offset", "scale")
        }
        ids = [10, 20, 30, 40]
        values = initializers.draw(
            "uniform",
            columns,
            6,
            tf.constant(ids, tf.int64),
            tf.constant(keys, tf.int64),
        )
        for row, (spec, key) in enumerate(zip(specs, keys, strict=True)):
            alone = draw(spec, [ids[row]], dim=6, key=key)
            np.testing.assert_array_equal(values[row : row + 1], alone)

    @parameterized.parameters("uniform", "normal", "truncated_normal")
    def test_distribution(self, name):
        # Consecutive ids, the hardest case for a mixing function.
        values = draw(initializer_spec.initializer(name), np.arange(20_000), dim=4)
        distribution = {
            "uniform": scipy.stats.uniform(-0.05, 0.1),
            "normal": scipy.stats.norm(0.0, 0.05),
            "truncated_normal": scipy.stats.truncnorm(-2, 2, 0.0, 0.05),
        }[name]
        for sample in (
            values.ravel(),
            values[:, 0],
            values[:, 3],
            values[:500].ravel(),
        ):
            self.assertGreater(
                scipy.stats.kstest(sample, distribution.cdf).pvalue, 1e-3
            )
        self.assertAllClose(values.mean(), 0.0, atol=4 * 0.05 / 80_000**0.5)
        self.assertAllClose(values.std(), distribution.std(), rtol=0.02)

    def test_columns_ids_and_keys_are_independent(self):
        spec = initializer_spec.NormalSpec(stddev=1.0)
        one = draw(spec, np.arange(20_000), dim=6, key=1)
        other = draw(spec, np.arange(20_000), dim=6, key=2)
        shifted = draw(spec, np.arange(1, 20_001), dim=6, key=1)
        correlations = np.corrcoef(np.concatenate([one, other], axis=1), rowvar=False)
        off_diagonal = correlations - np.eye(12)
        self.assertLess(np.abs(off_diagonal).max(), 5 / 20_000**0.5)
        across = [
            np.corrcoef(one[:, c], shifted[:, d])[0, 1]
            for c in range(6)
            for d in (c, 5)
        ]
        self.assertLess(np.abs(across).max(), 5 / 20_000**0.5)

    def test_no_value_repeats_beyond_chance(self):
        bits = draw(
            initializer_spec.UniformSpec(minval=0.0, maxval=1.0), np.arange(2000), 4
        )
        # 8000 draws of 2^24 values meet 8000^2 / 2^25 = 1.9 times; 12 is beyond chance.
        self.assertLess(bits.size - len(np.unique(bits)), 12)

    @parameterized.parameters("zeros", "uniform", "normal", "truncated_normal")
    def test_a_graph_draws_the_same_numbers(self, name):
        spec = initializer_spec.initializer(name)
        graph = tf.function(
            lambda ids: initializers.initial_values(spec, 9, ids, KEYS[3]),
            input_signature=[tf.TensorSpec([None], tf.int64)],
        )
        np.testing.assert_array_equal(
            graph(tf.constant(IDS, tf.int64)), draw(spec, IDS, dim=9, key=KEYS[3])
        )
        self.assertEqual(graph(tf.zeros([0], tf.int64)).shape, [0, 9])

    def test_slice_key_is_a_fixed_hash(self):
        digest = hashlib.blake2b(b"7:4:user:3:vec", digest_size=8).digest()
        expected = int(np.frombuffer(digest, "<i8")[0])
        self.assertEqual(initializers.slice_key(7, "user", "vec"), expected)

    def test_slice_keys_differ(self):
        names = [
            (0, "a", "b"),
            (1, "a", "b"),
            (0, "b", "a"),
            (0, "ab", ""),
            (0, "", "ab"),
        ]
        names += [(0, "a:1", "b"), (0, "a", "1:b"), (10, "a", "b"), (-1, "a", "b")]
        self.assertLen({initializers.slice_key(*name) for name in names}, len(names))
