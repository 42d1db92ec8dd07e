"""Tests of steps that overlap, on a model whose updates NumPy can compute."""

import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing
from monolith_tf.distribute.spec import PipelineSpec
from monolith_tf.embedding.initializer_spec import ZerosSpec
from monolith_tf.embedding.optimizer_spec import MomentumSpec
from monolith_tf.embedding.optimizer_spec import SgdSpec
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.shard import batch_log
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.features.encode import FeatureEncoder
from monolith_tf.features.spec import FeatureSpec
from monolith_tf.features.spec import LabelSpec
from monolith_tf.models import base
from monolith_tf.models import network as network_lib
from monolith_tf.training import overlapped
from monolith_tf.training import step as step_lib

_COLUMNS = {
    "user": tf.TensorSpec([None], tf.int64),
    "x": tf.TensorSpec([None], tf.float32),
    "y": tf.TensorSpec([None], tf.float32),
}
_LISTS = tf.RaggedTensorSpec([None, None], tf.int32, ragged_rank=1)
_RATE = 0.05
_ELSEWHERE = Placement(num_shards=2, devices=("/CPU:0", "/CPU:0"))


class _Sum(base.Model):
    """Predicts the user's number plus w x; the loss is half the squared error."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(1, use_bias=False, kernel_initializer="ones")

    def model_fn(self, inputs, mode):
        predictions = inputs.embeddings["user"][:, 0]
        predictions += self.dense(inputs.dense["x"])[:, 0]
        loss = 0.5 * tf.reduce_sum((predictions - inputs.labels["y"]) ** 2)
        return base.EstimatorSpec(mode=mode, predictions=predictions, loss=loss)


def _step(placement=None, optimizer=None, claims=None):
    table = TableSpec(
        name="user",
        dim=1,
        slot=1,
        initializer=ZerosSpec(),
        optimizer=optimizer or SgdSpec(learning_rate=_RATE),
    )
    features = (
        FeatureSpec(name="user", kind="id"),
        FeatureSpec(name="x", kind="dense"),
    )
    network = network_lib.Network(
        FeatureEncoder(features, {"user": 1}),
        EmbeddingStore(
            [table],
            [ColumnSpec(feature="user", table="user")],
            placement=placement,
            capacity=1000,
        ),
        _Sum(),
        labels=[LabelSpec(name="y")],
    )
    step = step_lib.TrainStep(network, tf_keras.optimizers.SGD(_RATE), claims=claims)
    step.build(_COLUMNS)
    return step


def _batches(rng, count):
    """Batches of all users, of changing sizes."""
    users = [np.arange(3), np.arange(2), np.arange(3)[::-1], np.arange(1, 3)]
    return [
        {
            "user": users[place % 4],
            "x": rng.normal(size=len(users[place % 4])).astype("float32"),
            "y": rng.normal(size=len(users[place % 4])).astype("float32"),
        }
        for place in range(count)
    ]


def _run(step, batches, spec, first=0, steps=None):
    signature = {name: tf.TensorSpec([None], s.dtype) for name, s in _COLUMNS.items()}
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(batches), output_signature=signature
    )

    @tf.function
    def loop(steps):
        now = tf.constant(0, tf.int64)
        return overlapped.loop(step, iter(dataset.enumerate(first)), steps, now, spec)

    return loop(tf.constant(len(batches) if steps is None else steps, tf.int64))


def _rows(step):
    users = {
        "user": tf.range(3, dtype=tf.int64),
        "x": tf.zeros([3]),
        "y": tf.zeros([3]),
    }
    _, pulled = step.network.lookup(users, base.Mode.EVALUATE)
    return step.network.store.combine(pulled)["user"]["vec"].numpy()[:, 0]


def _expected(batches, staleness):
    """Rows, w and losses if a step misses the last `staleness` updates."""
    w, pushes, losses = 1.0, [np.zeros(3)], []
    for place, batch in enumerate(batches):
        seen = sum(pushes[: max(1, place + 1 - staleness)])
        error = seen[batch["user"]] + w * batch["x"] - batch["y"]
        losses.append(0.5 * np.sum(error**2))
        w -= _RATE * np.sum(error * batch["x"])
        push = np.zeros(3)
        push[batch["user"]] = -_RATE * error
        pushes.append(push)
    return sum(pushes), w, losses


class OverlappedTest(testing.TestCase):
    @parameterized.product(
        prefetch=[0, 1],
        deferred_push=[0, 1],
        count_and_placement=[(1, None), (2, None), (9, None), (9, _ELSEWHERE)],
    )
    def test_a_step_misses_one_update_for_each_stage(
        self, prefetch, deferred_push, count_and_placement
    ):
        count, placement = count_and_placement
        step = _step(placement)
        batches = _batches(self.rng, count)
        spec = PipelineSpec(prefetch=prefetch, deferred_push=deferred_push)
        result = _run(step, batches, spec)
        rows, w, losses = _expected(batches, prefetch + deferred_push)
        self.assertEqual(result.steps, count)
        self.assertEqual(result.examples, sum(len(b["x"]) for b in batches))
        self.assertAllClose(result.loss_sum, sum(losses))
        self.assertAllClose(step.network.model.dense.kernel, [[w]])
        self.assertAllClose(_rows(step), rows)
        self.assertEqual(step.step, count)

    @parameterized.product(prefetch=[0, 1], deferred_push=[0, 1])
    def test_a_step_whose_loss_is_not_finite_changes_nothing(
        self, prefetch, deferred_push
    ):
        step = _step()
        batches = _batches(self.rng, 5)
        batches[3]["y"][0] = np.nan
        spec = PipelineSpec(prefetch=prefetch, deferred_push=deferred_push)
        result = _run(step, batches, spec)
        rows, w, _ = _expected(batches[:3], prefetch + deferred_push)
        self.assertFalse(result.finite)
        self.assertEqual(result.steps, 3)
        self.assertAllClose(step.network.model.dense.kernel, [[w]])
        self.assertAllClose(_rows(step), rows)
        self.assertEqual(step.step, 3)

    @parameterized.parameters(0, 1)
    def test_a_row_is_updated_once_for_each_of_its_batches(self, prefetch):
        optimizer = MomentumSpec(learning_rate=_RATE, momentum=0.5)
        step = _step(optimizer=optimizer)
        spec = PipelineSpec(prefetch=prefetch, deferred_push=1)
        rows, speed, w = np.zeros(3), np.zeros(3), 1.0
        # One call each, which misses no update.
        for number, batch in enumerate(_batches(self.rng, 2)):
            _run(step, [batch], spec, number)
            users = batch["user"]
            error = rows[users] + w * batch["x"] - batch["y"]
            speed[users] = 0.5 * speed[users] + error
            rows[users] -= _RATE * speed[users]
            w -= _RATE * np.sum(error * batch["x"])
        self.assertAllClose(_rows(step), rows)

    @parameterized.product(prefetch=[0, 1], deferred_push=[0, 1])
    def test_a_call_ends_with_its_steps_or_its_data(self, prefetch, deferred_push):
        step = _step()
        batches = _batches(self.rng, 4)
        spec = PipelineSpec(prefetch=prefetch, deferred_push=deferred_push)
        self.assertEqual(_run(step, batches, spec, steps=9).steps, 4)
        self.assertEqual(_run(step, batches, spec, first=4, steps=3).steps, 3)
        self.assertEqual(_run(step, [], spec, steps=3).steps, 0)
        self.assertEqual(step.step, 7)

    @parameterized.product(
        prefetch=[0, 1], deferred_push=[0, 1], placement=[None, _ELSEWHERE]
    )
    def test_batches_that_come_again_change_nothing(
        self, prefetch, deferred_push, placement
    ):
        step = _step(placement, claims=batch_log.Claims("/CPU:0"))
        batches = _batches(self.rng, 5)
        spec = PipelineSpec(prefetch=prefetch, deferred_push=deferred_push)
        _run(step, batches[:3], spec)
        kept = [_rows(step), step.network.model.dense.kernel.numpy()]
        result = _run(step, batches[:3], spec)
        self.assertEqual((result.steps, step.step), (3, 3))
        self.assertAllEqual(_rows(step), kept[0])
        self.assertAllEqual(step.network.model.dense.kernel, kept[1])
        step.forget_batches(5)
        _run(step, batches, spec)
        self.assertAllEqual(_rows(step), kept[0])
        self.assertEqual(step.step, 3)
        _run(step, batches[3:], spec, first=5)
        self.assertNotAllClose(_rows(step), kept[0])
        self.assertEqual(step.step, 5)

    @parameterized.parameters(True, False)
    def test_lists_are_held_from_one_step_to_the_next(self, is_true):
        @tf.function(input_signature=[tf.TensorSpec([], tf.bool), _LISTS, _LISTS])
        def chosen(predicate, lists, others):
            return overlapped._cond(
                predicate,
                lambda: (lists, {"x": tf.constant(4)}),
                lambda: (others, {"x": tf.constant(8)}),
            )

        first, second = [[1, 2], [], [3]], [[5], [6, 7]]
        found, rest = chosen(
            tf.constant(is_true),
            tf.ragged.constant(first, row_splits_dtype=tf.int64),
            tf.ragged.constant(second, row_splits_dtype=tf.int64),
        )
        self.assertIsInstance(found, tf.RaggedTensor)
        self.assertEqual(found.to_list(), first if is_true else second)
        self.assertAllEqual(rest["x"], 4 if is_true else 8)

    def test_lists_may_grow_from_one_step_to_the_next(self):
        @tf.function(input_signature=[tf.TensorSpec([], tf.int32), _LISTS])
        def grown(steps, lists):
            return overlapped._while(
                lambda state: state[0] < steps,
                lambda state: (state[0] + 1, tf.concat([state[1], state[1]], axis=0)),
                (tf.constant(0), lists),
            )

        lists = tf.ragged.constant([[1], [2, 3]], row_splits_dtype=tf.int64)
        count, found = grown(tf.constant(2), lists)
        self.assertAllEqual(count, 2)
        self.assertEqual(found.to_list(), [[1], [2, 3]] * 4)


if __name__ == "__main__":
    tf.test.main()
