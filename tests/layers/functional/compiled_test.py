import dataclasses
import os
import pathlib
import subprocess
import sys
import tempfile

import hypothesis
import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from hypothesis import strategies

from monolith_tf import testing
from monolith_tf.layers.functional import compiled

# Trains on batches of many sizes, from a graph that knows none of them. A row has 128
# KiB, so that batches of less than 32 are too small to be compiled.
_PROGRAM = """
import tensorflow as tf
from monolith_tf.layers import functional

weights = [tf.ones([2, 3]), tf.ones([3]), tf.ones([3, 2]), tf.ones([2])]

@tf.function(input_signature=[tf.TensorSpec([None, 2, 16384])])
def train(x):
    with tf.GradientTape() as tape:
        tape.watch(weights)
        y = functional.senet(x, *weights, fused=True)
    return tape.gradient(y, weights)

for size in [*range(66), 130, 180, 250]:
    train(tf.ones([size, 2, 16384]))
"""


@dataclasses.dataclass(frozen=True)
class _Scaled:
    """`y = factor * x * weight`, in blocks of 4 rows."""

    factor: float
    block_rows: int = 4

    def forward(self, batched, weights):
        return [self.factor * batched[0] * weights[0]], [batched[0]]

    def backward(self, batched, weights, saved, upstream):
        g = self.factor * upstream[0]
        return [g * weights[0]], [tf.reduce_sum(g * saved[0])]


class CompiledTest(testing.TestCase):
    # With blocks of 32: powers of two to 32; steps of 32 to 512, where the eighth of
    # 256 is 32; then steps of 64, 128, ...
    @parameterized.parameters(
        (0, 1), (1, 1), (2, 2), (3, 4), (31, 32), (32, 32), (33, 64), (65, 96),
        (500, 512), (513, 576), (1000, 1024), (1025, 1152), (4096, 4096), (4097, 4608),
    )  # fmt: skip
    def test_padded_size(self, size, expected):
        self.assertEqual(compiled.padded_size(size, 32), expected)
        self.assertEqual(compiled.padded_size(tf.constant(size), 32).numpy(), expected)

    @hypothesis.given(strategies.integers(0, 2**20), strategies.integers(0, 8))
    @hypothesis.settings(deadline=None, max_examples=50)
    def test_padded_size_is_enough_and_not_much_more(self, size, log_block):
        block = 2**log_block
        padded = compiled.padded_size(size, block)
        self.assertEqual(padded, compiled.padded_size(tf.constant(size), block).numpy())
        self.assertBetween(padded, size, max(2 * size, 1))
        if size > 16 * block:
            self.assertLessEqual(padded, 1.125 * size)
        self.assertEqual(padded % min(block, padded), 0)
        self.assertEqual(compiled.padded_size(padded, block), padded)

    def test_padded_sizes_are_few(self):
        found = {compiled.padded_size(size, 32) for size in range(65537)}
        self.assertLess(len(found), 100)

    @parameterized.product(size=[0, 1, 4, 5, 9], min_rows=[0, 5])
    def test_gives_rows_and_gradients_of_the_batch_alone(self, size, min_rows):
        x = tf.range(float(size))
        weight = tf.constant(3.0)

        def call(x, weight):
            return compiled.call(_Scaled(2.0), [x], [weight], min_rows)

        specs = [tf.TensorSpec([None]), tf.TensorSpec([])]
        for function in (
            call,
            tf.function(call, autograph=False),
            tf.function(call, autograph=False, input_signature=specs),
        ):
            with tf.GradientTape() as tape:
                tape.watch([x, weight])
                (y,) = function(x, weight)
            self.assertAllEqual(y, 6.0 * np.arange(size))
            of_x, of_weight = tape.gradient(y, [x, weight])
            self.assertAllEqual(of_x, [6.0] * size)
            self.assertAllEqual(of_weight, size * (size - 1))  # 2 * (0 + 1 + ...)

    def test_definitions_that_are_equal_share_a_function(self):
        specs = (tf.TensorSpec([None]),), (tf.TensorSpec([]),), 0
        one = compiled._function(_Scaled(2.0), *specs)
        self.assertIs(one, compiled._function(_Scaled(2.0), *specs))
        self.assertIsNot(one, compiled._function(_Scaled(5.0), *specs))

    def test_half_precision_reaches_a_definition_as_float32(self):
        # The sum over 4096 ones of 1.0 is 4096; float16 adds no 1 to 2048.
        x, weight = tf.ones([4096], tf.float16), tf.constant(1.0, tf.float16)
        with tf.GradientTape() as tape:
            tape.watch([x, weight])
            (y,) = compiled.call(_Scaled(1.0), [x], [weight])
        gradients = tape.gradient(y, [x, weight])
        self.assertEqual({t.dtype for t in (y, *gradients)}, {tf.float16})
        self.assertAllEqual(gradients[1], 4096)

    @parameterized.parameters(0, 9)
    def test_says_that_there_is_no_second_order(self, min_rows):
        x, weight = tf.ones([3]), tf.constant(1.0)

        def second(x):
            with tf.GradientTape() as outer:
                outer.watch(x)
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    (y,) = compiled.call(_Scaled(2.0), [x], [weight], min_rows)
                gradient = tape.gradient(y, x)
            return outer.gradient(gradient, x)

        for function in (second, tf.function(second, autograph=False)):
            with self.assertRaisesRegex(
                LookupError,
                r"only first-order gradients\. Use `fused=False` for gradients of",
            ):
                function(x)

    def test_a_tape_can_be_asked_twice(self):
        x, weight = tf.ones([3]), tf.constant(1.0)

        def twice(x):
            with tf.GradientTape(persistent=True) as tape:
                tape.watch([x, weight])
                (y,) = compiled.call(_Scaled(2.0), [x], [weight])
            return tape.gradient(y, x), tape.gradient(y, weight)

        for function in (twice, tf.function(twice, autograph=False)):
            of_x, of_weight = function(x)
            self.assertAllEqual(of_x, [2.0] * 3)
            self.assertAllEqual(of_weight, 6.0)

    def test_many_batch_sizes_need_few_compilations(self):
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | {
                "XLA_FLAGS": f"--xla_dump_to={folder} --xla_dump_hlo_as_text",
                "PYTHONPATH": os.pathsep.join(sys.path),
                "TF_USE_LEGACY_KERAS": "1",
            }
            command = [sys.executable, "-c", _PROGRAM]
            subprocess.run(
                command, env=environment, check=True, timeout=200, capture_output=True
            )
            found = list(pathlib.Path(folder).glob("*before_optimizations.txt"))
        # 32, 64, 128, 192 and 256 rows, forward and backward.
        self.assertLen(found, 10)
