"""Tests of one training step."""

import dataclasses

import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing
from monolith_tf.embedding.initializer_spec import ZerosSpec
from monolith_tf.embedding.optimizer_spec import SgdSpec
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.features.encode import FeatureEncoder
from monolith_tf.features.spec import FeatureSpec
from monolith_tf.features.spec import LabelSpec
from monolith_tf.models import base
from monolith_tf.models import network as network_lib
from monolith_tf.training import step as step_lib

_FEATURES = (FeatureSpec(name="user", kind="id"), FeatureSpec(name="x", kind="dense"))
_COLUMNS = {
    "user": tf.TensorSpec([None], tf.int64),
    "x": tf.TensorSpec([None], tf.float32),
    "y": tf.TensorSpec([None], tf.float32),
}


class _Sum(base.Model):
    """Predicts the sum of the user's embedding plus w x; the loss is squared error."""

    def __init__(self, optimizer=None):
        super().__init__()
        self.dense = layers.Dense(
            1, use_bias=False, kernel_initializer="ones", optimizer=optimizer
        )

    def model_fn(self, inputs, mode):
        predictions = (
            tf.reduce_sum(inputs.embeddings["user"], axis=-1)
            + self.dense(inputs.dense["x"])[:, 0]
        )
        loss = tf.reduce_sum((predictions - inputs.labels["y"]) ** 2)
        return base.EstimatorSpec(
            mode=mode,
            predictions=predictions,
            loss=loss,
            auxiliary_losses={"half": 0.5 * loss},
        )


def _step(model, **kwargs):
    table = TableSpec(
        name="user",
        dim=2,
        slot=1,
        initializer=ZerosSpec(),
        optimizer=SgdSpec(learning_rate=0.1),
    )
    store = EmbeddingStore(
        [table], [ColumnSpec(feature="user", table="user")], capacity=1000
    )
    network = network_lib.Network(
        FeatureEncoder(_FEATURES, {"user": 1}),
        store,
        model,
        labels=[LabelSpec(name="y")],
    )
    step = step_lib.TrainStep(network, tf_keras.optimizers.SGD(0.1), **kwargs)
    step.build(_COLUMNS)
    return step


def _batch(x=(1.0, 2.0), y=(0.0, 0.0)):
    return {
        "user": tf.constant([7, 8], tf.int64),
        "x": tf.constant(x, tf.float32),
        "y": tf.constant(y, tf.float32),
    }


def _run(step, *batches):
    dataset = tf.data.Dataset.from_tensor_slices(
        {key: tf.stack([b[key] for b in batches]) for key in batches[0]}
    )
    # The second dimension of every column is unknown to the step, as in real data.
    dataset = dataset.map(
        lambda b: {k: tf.ensure_shape(v, [None]) for k, v in b.items()}
    )
    loop = tf.function(step.loop)
    now = tf.constant(0, tf.int64)
    return loop(iter(dataset), tf.constant(100, tf.int64), now)


def _rows(step):
    """Returns the users' embeddings, as in an evaluation."""
    _, pulled = step.network.lookup(_batch(), base.Mode.EVALUATE)
    return step.network.store.combine(pulled)["user"]["vec"].numpy()


class TrainStepTest(testing.TestCase):
    def test_updates_dense_variables_and_rows(self):
        step = _step(_Sum())
        result = _run(step, _batch())
        # Predictions w x = (1, 2), error (1, 2), loss 5 plus half of it. The
        # gradient is 3 * error: for w 3 * (1 * 1 + 2 * 2) = 15, for a row 3 * error.
        self.assertAllClose(result.loss_sum, 7.5)
        self.assertAllClose(result.auxiliary["half"], 2.5)
        self.assertAllClose(step.network.model.dense.kernel, [[1 - 0.1 * 15]])
        self.assertAllClose(_rows(step), [[-0.3, -0.3], [-0.6, -0.6]])
        self.assertAllEqual(step.step, 1)
        self.assertAllEqual(result.examples, 2)

    def test_clips_the_norm_over_dense_gradients_and_rows_together(self):
        step = _step(_Sum(), clip_norm=1.0)
        result = _run(step, _batch())
        # 15^2 for w, and per row two columns of 3 and of 6.
        norm = np.sqrt(15**2 + 2 * 3**2 + 2 * 6**2)
        self.assertAllClose(result.norm, norm)
        self.assertAllClose(step.network.model.dense.kernel, [[1 - 0.1 * 15 / norm]])
        self.assertAllClose(_rows(step)[0], [-0.1 * 3 / norm] * 2)

    @parameterized.parameters(1.001, 1000.0)
    def test_a_norm_below_the_bound_is_left_as_it_is(self, bound):
        norm = np.sqrt(15**2 + 2 * 3**2 + 2 * 6**2)
        step = _step(_Sum(), clip_norm=bound * norm)
        self.assertAllClose(_run(step, _batch()).norm, norm)
        self.assertAllClose(step.network.model.dense.kernel, [[1 - 0.1 * 15]])
        self.assertAllClose(_rows(step), [[-0.3, -0.3], [-0.6, -0.6]])

    def test_clips_a_gradient_of_zero_to_zero(self):
        step = _step(_Sum(), clip_norm=1.0)
        _run(step, _batch(y=(1.0, 2.0)))
        self.assertAllEqual(step.network.model.dense.kernel, [[1.0]])
        self.assertAllEqual(_rows(step), np.zeros([2, 2]))

    def test_a_factor_scales_the_rates_of_rows_and_is_kept(self):
        scale = tf.Variable(0.5, trainable=False)
        step = _step(_Sum(), rate_scale=scale)
        _run(step, _batch())
        self.assertAllClose(_rows(step), [[-0.15, -0.15], [-0.3, -0.3]])
        self.assertIs(step.state.rate_scale, scale)

    def test_draws_follow_the_seed_which_is_zero_where_none_is_given(self):
        class Dropping(_Sum):
            def __init__(self):
                super().__init__()
                self.dropout = layers.Dropout(0.5)

            def model_fn(self, inputs, mode):
                dropped = self.dropout(tf.ones([1, 64]), training=True)
                spec = super().model_fn(inputs, mode)
                loss = spec.loss + tf.reduce_sum(dropped[0] * tf.range(64.0))
                return dataclasses.replace(spec, loss=loss)

        sums = []
        for seed in ({}, {"seed": 0}, {"seed": 7}):
            sums.append(float(_run(_step(Dropping(), **seed), _batch()).loss_sum))
        self.assertEqual(sums[0], sums[1])
        self.assertNotEqual(sums[1], sums[2])

    def test_a_variable_follows_its_own_optimizer(self):
        step = _step(_Sum(optimizer=tf_keras.optimizers.SGD(0.01)))
        _run(step, _batch())
        self.assertAllClose(step.network.model.dense.kernel, [[1 - 0.01 * 15]])

    def test_a_step_whose_loss_is_not_finite_changes_nothing_and_ends_the_loop(self):
        step = _step(_Sum())
        result = _run(step, _batch(), _batch(x=(1.0, np.nan)), _batch())
        self.assertFalse(result.finite)
        self.assertAllEqual(result.steps, 1)
        self.assertAllEqual(step.step, 1)
        self.assertAllClose(step.network.model.dense.kernel, [[1 - 0.1 * 15]])
        self.assertAllClose(_rows(step), [[-0.3, -0.3], [-0.6, -0.6]])

    def test_the_loop_ends_with_the_data(self):
        step = _step(_Sum())
        result = _run(step, _batch(), _batch())
        self.assertAllEqual(result.steps, 2)
        self.assertTrue(result.finite)

    def test_building_trains_nothing(self):
        step = _step(_Sum())
        self.assertAllEqual(step.step, 0)
        self.assertAllEqual(step.network.model.dense.kernel, [[1.0]])
        self.assertAllEqual(step.network.store.counters()["rows"], [0])

    def test_rows_of_a_step_that_changed_nothing_are_not_counted(self):
        step = _step(_Sum())
        result = _run(step, _batch(), _batch(x=(1.0, np.nan)))
        self.assertAllEqual(result.examples, 2)

    def test_takes_no_more_than_it_is_asked_for(self):
        step = _step(_Sum())
        dataset = tf.data.Dataset.from_tensors(_batch()).repeat(5)
        dataset = dataset.map(
            lambda b: {k: tf.ensure_shape(v, [None]) for k, v in b.items()}
        )
        loop, iterator = tf.function(step.loop), iter(dataset)
        now = tf.constant(0, tf.int64)
        for asked, taken in ((3, 3), (5, 2)):
            result = loop(iterator, tf.constant(asked, tf.int64), now)
            self.assertAllEqual(result.steps, taken)
        self.assertAllEqual(step.step, 5)

    def test_without_clipping_no_norm_is_worked_out(self):
        self.assertAllEqual(_run(_step(_Sum()), _batch()).norm, 0.0)

    def test_must_be_built_first(self):
        step = _step(_Sum())
        step.dense = None
        with self.assertRaisesRegex(ValueError, "`build` must be called before the"):
            step.update_dense(None, None)

    def test_no_result_is_that_of_no_step(self):
        result = _step(_Sum()).no_result()
        found = tf.nest.map_structure(lambda t: t.numpy().item(), result)
        self.assertEqual(
            found, step_lib.LoopResult(0, 0, 0.0, True, 0.0, {"half": 0.0}, {})
        )

    def test_clips_sparse_gradients_of_dense_variables(self):
        sparse = tf.IndexedSlices(
            tf.constant([[6.0]]), tf.constant([1]), tf.constant([3, 1])
        )
        step = _step(_Sum(), clip_norm=5.0)
        dense, rows, norm = step._clip(
            [sparse, None], {"a": tf.constant([8.0]), "b": None}
        )
        self.assertAllClose(norm, 10.0)
        self.assertAllClose(dense[0].values, [[3.0]])
        self.assertAllEqual(dense[0].indices, [1])
        self.assertIsNone(dense[1])
        self.assertAllClose(rows["a"], [4.0])
        self.assertIsNone(rows["b"])
