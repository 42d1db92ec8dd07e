"""Tests of what all metrics have in common."""

import pickle
import subprocess
import sys

import hypothesis
import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from hypothesis import strategies as st

from monolith_tf import metrics
from monolith_tf import testing

_EACH = [(name.replace("@", "_at_"), name) for name in metrics.NAMES]
_KEYED = ("gauc", "hr@10", "mrr", "ndcg@10", "recall@10")

# Few distinct values, so that ties and empty classes are common.
_ROWS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.125, 0.3, 0.5, 0.875, 1.0]),
        st.integers(0, 1),
        st.sampled_from([0.0, 0.5, 1.0, 3.0]),
        st.integers(0, 2),
    ),
    max_size=24,
)


def _create(name):
    if name == "histogram_auc":  # as many bins as by default make the tests slow
        return metrics.HistogramAUC(num_bins=64)
    return metrics.create(name)


def _updated(metric, rows):
    columns = np.array(rows, np.float64).reshape(-1, 4).T
    metric.update(*columns[:3], columns[3].astype(np.int64))
    return metric


class MetricTest(testing.TestCase):
    @parameterized.named_parameters(*_EACH)
    @hypothesis.settings(deadline=None, max_examples=40)
    @hypothesis.given(batches=st.lists(_ROWS, min_size=1, max_size=4))
    def test_cutting_and_merging_do_not_matter(self, name, batches):
        whole = _updated(_create(name), [row for rows in batches for row in rows])
        in_batches = _create(name)
        merged = _create(name)
        for rows in batches:
            _updated(in_batches, rows)
            part = _updated(_create(name), rows)
            part.result()  # does not affect later updates
            merged.merge(pickle.loads(pickle.dumps(part)))  # from another process
        expected = whole.result()
        for metric in (in_batches, merged):
            np.testing.assert_allclose(metric.result(), expected, rtol=1e-12)

    @parameterized.named_parameters(*_EACH)
    def test_empty_is_nan_and_reset_forgets(self, name):
        metric = _create(name)
        self.assertIs(type(metric.result()), float)
        self.assertTrue(np.isnan(metric.result()))
        _updated(metric, [])
        self.assertTrue(np.isnan(metric.result()))
        rows = [(0.25, 1, 1, 0), (0.75, 0, 2, 0), (0.5, 1, 1, 0)]
        first = _updated(metric, rows).result()
        self.assertTrue(np.isfinite(first))
        metric.reset()
        self.assertTrue(np.isnan(metric.result()))
        self.assertEqual(_updated(metric, rows).result(), first)

    @parameterized.named_parameters(*_EACH)
    def test_merge_leaves_the_other_as_it_is(self, name):
        rows = [(0.25, 1, 1, 0), (0.75, 0, 2, 0), (0.5, 1, 1, 0)]
        one, other = (_updated(_create(name), rows) for _ in range(2))
        before = other.result()
        one.merge(other)
        _updated(one, [(0.9, 0, 5, 0)])
        self.assertEqual(other.result(), before)

    @parameterized.named_parameters(*_EACH)
    def test_takes_tensors_columns_and_reused_buffers(self, name):
        p = np.array([0.25, 0.75, 0.5], np.float32)
        y, w, keys = np.array([1, 0, 1]), np.array([1.0, 2.0, 1.0]), np.zeros(3, int)
        expected = _create(name)
        expected.update(p, y, w, keys)
        metric = _create(name)
        metric.update(*(tf.constant(c)[:, None] for c in (p, y, w, keys)))
        self.assertEqual(metric.result(), expected.result())
        metric.reset()
        buffers = [c.copy() for c in (p, y, w, keys)]
        metric.update(*buffers)
        for buffer in buffers:
            buffer[:] = 0
        self.assertEqual(metric.result(), expected.result())

    @parameterized.named_parameters(*_EACH)
    def test_nan_predictions_do_not_look_good(self, name):
        metric = _create(name)
        metric.update([np.nan, 0.5, 0.25], [1, 0, 0], keys=[1, 1, 1])
        result = metric.result()
        if metrics.needs_keys(name) and name != "gauc":  # NaN ranks last of three
            worst = {"mrr": 1 / 3, "ndcg@10": 0.5}.get(name, 1.0)
            self.assertAlmostEqual(result, worst)
        else:
            self.assertTrue(np.isnan(result))

    @parameterized.named_parameters(*_EACH)
    def test_rejects_columns_of_other_lengths(self, name):
        metric = _create(name)
        with self.assertRaisesRegex(
            ValueError, r"`labels` must have .* \[2\]\. .*\(3,"
        ):
            metric.update([0.5, 0.5], [1, 0, 1], keys=[1, 1])
        with self.assertRaisesRegex(ValueError, r"`weights` must have .* \[2\]\. Rec"):
            metric.update([0.5, 0.5], [1, 0], [1.0], keys=[1, 1])
        with self.assertRaisesRegex(ValueError, r"`predictions` .* \[batch, 1\]\. Rec"):
            metric.update([[0.5, 0.5]], [1, 0], keys=[1, 1])

    @parameterized.named_parameters(("negative", -1.0), ("nan", np.nan))
    def test_rejects_weights(self, value):
        metric = metrics.create("auc")
        with self.assertRaisesRegex(ValueError, r"`weights` must not be neg.*Received"):
            metric.update([0.5, 0.5], [1, 0], [1.0, value])

    @parameterized.parameters(*_KEYED)
    def test_rejects_missing_and_wrong_keys(self, name):
        metric = metrics.create(name)
        with self.assertRaisesRegex(ValueError, r"needs `keys`, .*: keys=None\."):
            metric.update([0.5, 0.5], [1, 0])
        with self.assertRaisesRegex(ValueError, r"`keys` must be .* float64"):
            metric.update([0.5, 0.5], [1, 0], keys=[1.0, 2.0])
        with self.assertRaisesRegex(ValueError, r"`keys` must have shape \[2\]"):
            metric.update([0.5, 0.5], [1, 0], keys=[1])

    @parameterized.parameters("accuracy", "auc", "gauc", "histogram_auc")
    def test_rejects_labels_that_are_not_binary(self, name):
        metric = metrics.create(name)
        with self.assertRaisesRegex(
            ValueError, r"needs `labels` that are 0 or 1\. Rec"
        ):
            metric.update([0.5, 0.5], [1, 2], keys=[1, 1])

    @parameterized.parameters("log_loss", "normalized_entropy", "histogram_auc")
    def test_rejects_predictions_that_are_not_probabilities(self, name):
        metric = metrics.create(name)
        with self.assertRaisesRegex(
            ValueError, r"that are probabilities, .*Apply a sig"
        ):
            metric.update([0.5, -3.0], [1, 0])

    @parameterized.parameters("log_loss", "normalized_entropy")
    def test_rejects_labels_outside_the_unit_interval(self, name):
        with self.assertRaisesRegex(ValueError, r"needs `labels` from 0 to 1\. Rec"):
            metrics.create(name).update([0.5, 0.5], [1, 2])

    def test_rejects_merging_another_metric_or_other_arguments(self):
        with self.assertRaisesRegex(TypeError, r"`other` must be a RMSE\. .*other=MSE"):
            metrics.RMSE().merge(metrics.MSE())
        for one, other in (
            (metrics.NDCG(5), metrics.NDCG(10)),
            (metrics.HistogramAUC(4), metrics.HistogramAUC(8)),
            (metrics.Accuracy(0.5), metrics.Accuracy(0.6)),
        ):
            with self.assertRaisesRegex(ValueError, r"`other` must have .* other with"):
                one.merge(other)

    def test_needs_no_tensorflow(self):
        program = (
            "import sys, monolith_tf.metrics as m;"
            "[(m.create(n).result(), m.needs_keys(n)) for n in m.NAMES];"
            "m.leave_one_out_ranks([[1.0]]);"
            "sys.exit('tensorflow' in sys.modules)"
        )
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
