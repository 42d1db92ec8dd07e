"""Tests of scoring: every example counts once, here and on the workers of a cluster."""

import types
from unittest import mock

import numpy as np
import tensorflow as tf

from monolith_tf import metrics
from monolith_tf import testing
from monolith_tf.models import base
from monolith_tf.training import cluster_evaluation
from monolith_tf.training import evaluation

_X = np.array([0.1, 0.9, 0.4, 0.6, 0.2, 0.8, 0.7], np.float32)
_Y = np.array([0, 1, 1, 0, 0, 1, 0], np.float32)
_WEIGHT = np.array([1, 2, 1, 3, 1, 1, 2], np.float32)
_GROUP = np.array([1, 1, 1, 2, 2, 2, 2], np.int64)


class _Network:
    """Predicts `x` for the head `click`, and its square for the head `like`.

    Args:
      weighted: Whether examples have weights.
      has_loss: Whether the model has a loss in evaluations.
    """

    def __init__(self, *, weighted=True, has_loss=True):
        self.modes = []
        self.model = types.SimpleNamespace(total_loss=lambda spec: spec.loss + 1.0)
        self._weighted = weighted
        self._has_loss = has_loss

    def lookup(self, columns, mode):
        self.modes.append(mode)
        return types.SimpleNamespace(ids={"user": columns["group"]}), "pulled"

    def run(self, columns, batch, pulled, mode):
        del batch
        assert pulled == "pulled"
        self.modes.append(mode)
        x = columns["x"]
        return base.EstimatorSpec(
            mode=mode,
            predictions={"click": x, "like": x * x},
            loss=tf.reduce_mean(x) if self._has_loss else None,
            head_labels={"like": "liked"},
        )

    def targets(self, columns):
        y = columns["y"]
        weights = columns["weight"] if self._weighted else None
        return {"click": y, "liked": 1.0 - y}, weights

    def __call__(self, columns, mode):
        self.modes.append(mode)
        x = columns["x"]
        return base.EstimatorSpec(
            mode=mode, predictions={"click": x}, extra_outputs={"twice": 2.0 * x}
        )


def _dataset(batch_size=3):
    columns = {"x": _X, "y": _Y, "weight": _WEIGHT, "group": _GROUP}
    return tf.data.Dataset.from_tensor_slices(columns).batch(batch_size)


def _mse(predictions, labels, weights):
    return np.sum(weights * (predictions - labels) ** 2) / np.sum(weights)


class EvaluatorTest(testing.TestCase):
    def test_every_example_counts_once(self):
        network = _Network()
        evaluator = evaluation.Evaluator(network, ["mse", "auc"])
        found = evaluator.evaluate(_dataset())
        self.assertEqual(
            set(found), {"click/mse", "click/auc", "like/mse", "like/auc", "loss"}
        )
        self.assertAllClose(found["click/mse"], _mse(_X, _Y, _WEIGHT))
        self.assertAllClose(found["like/mse"], _mse(_X**2, 1 - _Y, _WEIGHT))
        # The last batch is smaller: the mean is over examples, not over batches.
        self.assertAllClose(found["loss"], np.mean(_X) + 1.0)
        self.assertEqual(set(network.modes), {base.Mode.EVALUATE})
        self.assertTrue(all(isinstance(value, float) for value in found.values()))

    def test_without_weights_all_examples_weigh_the_same(self):
        evaluator = evaluation.Evaluator(_Network(weighted=False), ["mse"])
        found = evaluator.evaluate(_dataset())
        self.assertAllClose(found["click/mse"], np.mean((_X - _Y) ** 2))

    def test_a_second_evaluation_starts_from_nothing(self):
        evaluator = evaluation.Evaluator(_Network(), ["mse"])
        first = evaluator.evaluate(_dataset())
        self.assertAllClose(evaluator.evaluate(_dataset()), first)
        self.assertAllClose(evaluator.evaluate(_dataset(7)), first)

    def test_ids_of_a_feature_group_the_rows(self):
        evaluator = evaluation.Evaluator(_Network(), ["gauc"], group_by="user")
        expected = metrics.create("gauc")
        expected.update(_X, _Y, weights=_WEIGHT, keys=_GROUP)
        found = evaluator.evaluate(_dataset())["click/gauc"]
        self.assertAllClose(found, expected.result())
        alone = metrics.create("auc")
        alone.update(_X, _Y, weights=_WEIGHT)
        self.assertGreater(abs(found - alone.result()), 0.01)

    def test_a_model_without_a_loss_has_none(self):
        evaluator = evaluation.Evaluator(_Network(has_loss=False), ["mse"])
        found = evaluator.evaluate(_dataset())
        self.assertTrue(np.isnan(found["loss"]))
        self.assertAllClose(found["click/mse"], _mse(_X, _Y, _WEIGHT))

    def test_no_rows_are_an_error(self):
        evaluator = evaluation.Evaluator(_Network(), ["mse"])
        for dataset in (_dataset().take(0), _dataset().take(1).map(_no_rows)):
            with self.assertRaisesRegex(ValueError, "nothing to evaluate"):
                evaluator.evaluate(dataset)

    def test_batches_of_any_size_share_a_trace(self):
        network = _Network()
        evaluator = evaluation.Evaluator(network, ["mse"])
        for size in (7, 3, 4, 5):
            evaluator.evaluate(_dataset(size))
        # A trace looks up rows and runs the model once.
        self.assertLen(network.modes, 2)

    def test_predictions_come_with_extra_outputs_batch_by_batch(self):
        network = _Network()
        found = list(evaluation.predict(network, _dataset()))
        self.assertEqual([set(batch) for batch in found], [{"click", "twice"}] * 3)
        self.assertEqual([len(batch["click"]) for batch in found], [3, 3, 1])
        self.assertAllEqual(np.concatenate([b["click"] for b in found]), _X)
        self.assertAllEqual(np.concatenate([b["twice"] for b in found]), 2 * _X)
        self.assertIsInstance(found[0]["click"], np.ndarray)
        self.assertEqual(set(network.modes), {base.Mode.PREDICT})
        self.assertLessEqual(len(network.modes), 2)


def _no_rows(columns):
    return {name: column[:0] for name, column in columns.items()}


class _Calls:
    """Runs each call when it starts, and returns the newest result first."""

    most_under_way = 0
    begun: list = []  # noqa: RUF012

    def __init__(self, coordinator, check):
        assert (coordinator, check) == ("coordinator", "check")
        self._done = []

    @property
    def under_way(self):
        return len(self._done)

    def begin(self, function, args, tag):
        _Calls.begun.append((args, tag))
        numbers = [tf.constant(number, tf.int64) for number in args]
        result = tf.nest.map_structure(lambda t: t.numpy(), function(*numbers))
        self._done.append(types.SimpleNamespace(tag=tag, result=result))
        _Calls.most_under_way = max(_Calls.most_under_way, self.under_way)

    def next_done(self):
        return self._done.pop()


_SPLIT_NEWS = {"eval": 7, "test": 8}


class _Feed:
    """Returns batches of two rows, by their numbers."""

    def __init__(self):
        self.asked = []
        self.heard = []

    def dataset(self, split, epoch, begin, end):
        self.asked.append((split, int(tf.get_static_value(epoch))))
        return _dataset(2).skip(begin).take(end - begin)

    def news(self, split):
        return tf.constant([[_SPLIT_NEWS[split]]])

    def hear(self, split, news):
        self.heard.append((split, news.tolist()))


class ClusterEvaluatorTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        _Calls.begun, _Calls.most_under_way = [], 0
        self.enter_context(mock.patch.object(cluster_evaluation.calls, "Calls", _Calls))

    def evaluator(self, network, *, workers=1, batches_per_call=1, **kwargs):
        cluster = types.SimpleNamespace(
            coordinator="coordinator",
            check="check",
            spec=types.SimpleNamespace(workers=workers),
        )
        self.alone = evaluation.Evaluator(network, ["mse", "gauc"], **kwargs)
        self.feed = _Feed()
        return cluster_evaluation.ClusterEvaluator(
            self.alone, cluster, self.feed, batches_per_call
        )

    def test_workers_find_what_one_process_finds(self):
        for batches_per_call in (1, 3):
            evaluator = self.evaluator(
                _Network(), batches_per_call=batches_per_call, group_by="user"
            )
            found = evaluator.evaluate("eval", 4)
            self.assertAllClose(found, self.alone.evaluate(_dataset()))
            self.assertEqual(self.feed.asked, [("eval", 0)])

    def test_batches_come_in_their_order(self):
        evaluator = self.evaluator(_Network(), batches_per_call=3, group_by="user")
        batches = list(evaluator._batches("eval", 4))
        self.assertEqual(
            [len(b["predictions"]["click"]) for b in batches], [2, 2, 2, 1]
        )
        rows = np.concatenate([batch["predictions"]["click"] for batch in batches])
        self.assertAllEqual(rows, _X)
        keys = np.concatenate([batch["keys"][""] for batch in batches])
        self.assertAllEqual(keys, _GROUP)
        losses = [batch["loss"][""] for batch in batches]
        self.assertAllClose(losses, [_X[i : i + 2].mean() + 1 for i in (0, 2, 4, 6)])

    def test_calls_end_with_the_split_and_each_worker_has_two(self):
        evaluator = self.evaluator(_Network(), workers=1, batches_per_call=1)
        list(evaluator._batches("eval", 4))
        self.assertEqual(
            _Calls.begun, [((0, 1), 0), ((1, 2), 1), ((2, 3), 2), ((3, 4), 3)]
        )
        self.assertEqual(_Calls.most_under_way, 2)
        _Calls.begun, _Calls.most_under_way = [], 0
        evaluator = self.evaluator(_Network(), workers=2, batches_per_call=1)
        list(evaluator._batches("eval", 4))
        self.assertEqual(_Calls.most_under_way, 4)
        _Calls.begun = []
        evaluator = self.evaluator(_Network(), batches_per_call=3)
        list(evaluator._batches("eval", 4))
        self.assertEqual(_Calls.begun, [((0, 3), 0), ((3, 4), 1)])

    def test_a_second_evaluation_needs_no_trace(self):
        network = _Network()
        evaluator = self.evaluator(network, group_by="user")
        evaluator.evaluate("eval", 4)
        traced = len(network.modes)
        evaluator.evaluate("eval", 4)
        self.assertLen(network.modes, traced)
        evaluator.evaluate("test", 4)
        self.assertEqual(self.feed.asked, [("eval", 0), ("test", 0)])
        said = [("eval", [[7]])] * 8 + [("test", [[8]])] * 4
        self.assertEqual(self.feed.heard, said)
