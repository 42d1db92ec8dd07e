"""Tests of combiners against NumPy loops."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import testing
from monolith_tf.embedding.lookup import combiners
from monolith_tf.padded import Padded

# Lengths of the lists of a batch, with empty lists in every place.
BATCHES = {
    "mixed": [2, 0, 1, 5, 0, 0, 3, 1],
    "empty_ends": [0, 0, 3, 1, 0, 0],
    "singles": [1, 1, 1],
    "all_empty": [0, 0],
    "one": [4],
    "no_lists": [],
}
POOLING = ("sum", "mean", "sqrtn", "max")


def reference(values, lengths, combiner):
    """Pools list by list; returns the embeddings and a function of their gradient."""
    starts = np.cumsum([0, *lengths])
    pooled = np.zeros([len(lengths), values.shape[1]])
    for i, length in enumerate(lengths):
        rows = values[starts[i] : starts[i + 1]]
        if length:
            pooled[i] = {
                "sum": rows.sum(0),
                "mean": rows.mean(0),
                "sqrtn": rows.sum(0) / np.sqrt(length),
                "max": rows.max(0),
            }[combiner]

    def gradient(upstream):
        result = np.zeros(values.shape)
        for i, length in enumerate(lengths):
            for j in range(starts[i], starts[i + 1]):
                share = {"sum": 1, "mean": 1 / length, "sqrtn": length**-0.5}
                if combiner == "max":
                    result[j] = upstream[i] * (values[j] == pooled[i])
                else:
                    result[j] = upstream[i] * share[combiner]
        return result

    return pooled, gradient


def _operations(graph):
    """Types of a graph's operations, and of those in its branches."""
    definition = graph.as_graph_def()
    nodes = [*definition.node]
    for function in definition.library.function:
        nodes += function.node_def
    return {node.op for node in nodes}


class CombinersTest(testing.TestCase):
    @parameterized.parameters("sum", "mean", "sqrtn", "max", "first_n", "none")
    def test_padded_lists_give_what_ragged_ones_give(self, combiner):
        lengths = [2, 0, 3, 1]
        rows = self.rng.normal(size=[4, 3, 5]).astype("f4") - 2.0
        lists = Padded(tf.zeros([4, 3], tf.int64), tf.constant(lengths, tf.int64))
        rows *= lists.mask()[:, :, tf.newaxis].numpy()
        ragged = tf.RaggedTensor.from_tensor(rows, lengths=lengths)
        padded = combiners.combine_padded(tf.constant(rows), lists, combiner)
        expected = combiners.combine(
            ragged.values, tf.cast(ragged.row_splits, tf.int64), combiner, 3
        )
        if combiner == "first_n":
            expected, _ = expected
        elif combiner == "none":
            padded, expected = padded.to_tensor(), expected.to_tensor()
        self.assertAllClose(padded, expected, 1e-6)

    def batch(self, name, dim=3):
        lengths = BATCHES[name]
        # Distinct values, so that a maximum has no ties, and all of them negative, so
        # that one of zeros would show.
        count = sum(lengths) * dim
        values = -1.0 - self.rng.permutation(count).reshape(-1, dim) / 7
        splits = np.cumsum([0, *lengths]).astype("int64")
        return lengths, values.astype("float32"), splits

    @parameterized.product(name=list(BATCHES), combiner=POOLING)
    def test_pools_like_a_loop_and_so_do_its_gradients(self, name, combiner):
        lengths, values, splits = self.batch(name)
        upstream = self.rng.normal(size=(len(lengths), 3)).astype("float32")
        expected, expected_gradient = reference(values, lengths, combiner)

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, 3]),
                tf.TensorSpec([None], tf.int64),
                tf.TensorSpec([None, 3]),
            ]
        )
        def run(values, splits, upstream):
            with tf.GradientTape() as tape:
                tape.watch(values)
                pooled = combiners.combine(values, splits, combiner)
            return pooled, tape.gradient(pooled, values, upstream)

        pooled, gradient = run(values, splits, upstream)
        self.assertAllClose(pooled, expected)
        self.assertAllClose(gradient, expected_gradient(upstream))
        eager = combiners.combine(tf.constant(values), tf.constant(splits), combiner)
        self.assertAllEqual(eager, pooled)
        self.assertEqual(eager.shape, [len(lengths), 3])

    @parameterized.product(name=list(BATCHES), max_length=[1, 3, 7])
    def test_first_n_pads_and_cuts(self, name, max_length):
        lengths, values, splits = self.batch(name)
        upstream = self.rng.normal(size=(len(lengths), max_length, 3)).astype("float32")
        expected = np.zeros([len(lengths), max_length, 3])
        expected_mask = np.zeros([len(lengths), max_length], bool)
        expected_gradient = np.zeros(values.shape)
        for i, length in enumerate(lengths):
            for j in range(min(length, max_length)):
                expected[i, j] = values[splits[i] + j]
                expected_mask[i, j] = True
                expected_gradient[splits[i] + j] = upstream[i, j]

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, 3]),
                tf.TensorSpec([None], tf.int64),
                tf.TensorSpec([None, max_length, 3]),
            ]
        )
        def run(values, splits, upstream):
            with tf.GradientTape() as tape:
                tape.watch(values)
                padded, mask = combiners.combine(values, splits, "first_n", max_length)
            self.assertEqual(padded.shape.as_list(), [None, max_length, 3])
            self.assertEqual(mask.shape.as_list(), [None, max_length])
            return padded, mask, tape.gradient(padded, values, upstream)

        padded, mask, gradient = run(values, splits, upstream)
        self.assertAllEqual(padded, expected)
        self.assertAllEqual(mask, expected_mask)
        self.assertAllEqual(gradient, expected_gradient)

    @parameterized.parameters(*BATCHES)
    def test_none_keeps_the_lists(self, name):
        lengths, values, splits = self.batch(name)
        with tf.GradientTape() as tape:
            rows = tf.constant(values)
            tape.watch(rows)
            lists = combiners.combine(rows, tf.constant(splits), "none")
            total = tf.reduce_sum(lists.values**2)
        self.assertAllEqual(lists.row_lengths(), lengths)
        self.assertEqual(lists.shape.as_list(), [len(lengths), None, 3])
        self.assertAllEqual(lists.values, values)
        self.assertAllClose(tape.gradient(total, rows), 2 * values)

    @parameterized.parameters("sum", "mean", "sqrtn", "max", "first_n", "none")
    def test_a_step_does_not_wait_for_a_check_of_the_splits(self, combiner):
        graph = (
            tf.function(lambda *lists: combiners.combine(*lists, combiner, 3))
            .get_concrete_function(
                tf.TensorSpec([None, 2]), tf.TensorSpec([None], tf.int64)
            )
            .graph
        )
        self.assertNotIn("Assert", _operations(graph))

    def test_nor_for_one_of_the_splits_that_are_cut(self):
        splits = tf.TensorSpec([None], tf.int64)
        graph = (
            tf.function(lambda *lists: combiners.truncate(*lists, 2))
            .get_concrete_function(splits, splits)
            .graph
        )
        self.assertNotIn("Assert", _operations(graph))

    def test_tied_maxima_share_the_gradient(self):
        values = tf.constant([[2.0], [2.0], [1.0]])
        with tf.GradientTape() as tape:
            tape.watch(values)
            pooled = combiners.combine(values, tf.constant([0, 3], tf.int64), "max")
        self.assertAllClose(tape.gradient(pooled, values), [[0.5], [0.5], [0.0]])

    @parameterized.product(name=list(BATCHES), max_length=[1, 3])
    def test_truncate_keeps_the_first_of_each_list(self, name, max_length):
        lengths, _, splits = self.batch(name)
        ids = self.rng.integers(0, 2**62, sum(lengths))
        kept, kept_splits = combiners.truncate(
            tf.constant(ids), tf.constant(splits), max_length
        )
        lists = [
            ids[s : s + n][:max_length] for s, n in zip(splits, lengths, strict=False)
        ]
        self.assertAllEqual(kept, [i for one in lists for i in one])
        self.assertAllEqual(kept_splits, np.cumsum([0, *(len(one) for one in lists)]))
        self.assertEqual(kept.dtype, tf.int64)

    def test_unbroken_batch_of_one_long_list_stays_small(self):
        # A dense [batch, longest list] intermediate would take 40 GB.
        splits = np.concatenate([np.zeros(10_000), [100_000]]).astype("int64")
        pooled = combiners.combine(tf.ones([100_000, 1]), tf.constant(splits), "sum")
        self.assertAllEqual(pooled[-1], [100_000.0])
        self.assertAllEqual(tf.reduce_sum(pooled), 100_000.0)

    @parameterized.parameters(
        ("avg", None, r"`combiner` must be one of \['sum', 'mean', .*combiner='avg'"),
        ("first_n", None, r"`max_length` must be at least 1 .*max_length=None"),
        ("first_n", 0, r"`max_length` must be at least 1 .*max_length=0"),
    )
    def test_rejects(self, combiner, max_length, message):
        with self.assertRaisesRegex(ValueError, message):
            combiners.combine(
                tf.zeros([0, 2]), tf.zeros([1], tf.int64), combiner, max_length
            )
