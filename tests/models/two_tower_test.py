"""Two towers: the loss against its definition, and the learned item intervals."""

import pathlib

import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import config as config_lib
from monolith_tf import testing
from monolith_tf.experiment import build
from monolith_tf.models import base
from monolith_tf.models import two_tower

_CONFIG = """
model_dir: unused
data: {format: synthetic}
features:
  - {name: user, kind: id}
  - {name: movie, kind: id}
  - {name: interval, column: movie, kind: id, table: interval}
labels: [liked]
default_table: {dim: 4}
tables:
  - name: interval
    dim: 1
    initializer: zeros
    optimizer: {name: batch_softmax, learning_rate: 0.5}
model:
  name: two_tower
  params:
    {label: liked, user_features: [user], item_features: [movie], item: movie,
     item_interval: interval, user_units: [3], item_units: [3]}
"""


def _params(**params):
    return two_tower.TwoTowerParams(
        **{
            "label": "liked",
            "user_features": ("user", "age"),
            "item_features": ("movie",),
            "item": "movie",
            "user_units": (5, 3),
            "item_units": (4, 3),
            **params,
        }
    )


class TwoTowerTest(testing.TestCase):
    def inputs(self, **given):
        def draw(*shape):
            return tf.constant(self.rng.normal(size=shape), tf.float32)

        return base.Inputs(
            embeddings={
                "movie": draw(4, 2),
                "user": draw(4, 2),
                "interval": tf.constant([[2.0], [0.0], [8.0], [2.0]]),
            },
            dense={"age": draw(4, 1)},
            labels={"liked": tf.constant([1.0, 1.0, 0.0, 0.5])},
            # Rows 0 and 3 have one movie.
            keys={"movie": tf.constant([7, 8, 9, 7], tf.int64)},
            **given,
        )

    def tower(self, x, layer):
        first, bias_1, second, bias_2 = layer.get_weights()
        return np.maximum(x @ first + bias_1, 0) @ second + bias_2

    @parameterized.parameters((True, None), (True, "interval"), (False, "interval"))
    def test_matches_definition(self, normalize, interval):
        tf_keras.utils.set_random_seed(3)  # So that no embedding is all zeros.
        model = two_tower.TwoTower(
            _params(normalize=normalize, item_interval=interval, temperature=0.5)
        )
        weights = np.array([1, 2, 1, 1], np.float32)
        inputs = self.inputs(weights=tf.constant(weights))
        spec = model.run(inputs, base.Mode.TRAIN)
        user = np.concatenate([inputs.embeddings["user"], inputs.dense["age"]], axis=1)
        users = self.tower(user, model.layers[0])
        items = self.tower(inputs.embeddings["movie"].numpy(), model.layers[1])
        if normalize:
            users /= np.linalg.norm(users, axis=1, keepdims=True)
            items /= np.linalg.norm(items, axis=1, keepdims=True)
        self.assertAllClose(spec.extra_outputs["user_embedding"], users)
        self.assertAllClose(spec.extra_outputs["item_embedding"], items)
        self.assertAllClose(spec.predictions["liked"], np.sum(users * items, axis=1))
        scores = users @ items.T / 0.5
        if interval:
            scores = scores + np.log([2.0, 1.0, 8.0, 2.0])
        rivals = {0: [0, 1, 2], 1: [0, 1, 2, 3], 3: [1, 2, 3]}
        terms = {
            i: np.log(np.exp(scores[i, of]).sum()) - scores[i, i]
            for i, of in rivals.items()
        }
        # Labels 1, 1 and 0.5 times weights 1, 2 and 1; row 2 was not liked.
        expected = (terms[0] + 2 * terms[1] + 0.5 * terms[3]) / 3.5
        self.assertAllClose(spec.loss, expected)

    def test_training_learns_how_often_items_come(self):
        config = pathlib.Path(self.get_temp_dir()) / "job.yaml"
        config.write_text(_CONFIG)
        job = build.Job(config_lib.load_config(config, data="ignored"))
        step = job.train_step(job.settle(None))
        # Movie 1 is in each batch, movie 2 in every second one.
        batches = [[1, 1, 2], [1, 3, 1], [1, 2, 1], [1, 1, 1]]
        for movies in batches:
            step(_columns(movies), tf.constant(0, tf.int64))
        columns = _columns([1, 2, 4])
        batch, pulled = step.network.lookup(columns, base.Mode.EVALUATE)
        found = step.network.inputs(batch, pulled).embeddings["interval"]
        # By halves towards the steps since: of 1: 0, 1, 1, 1; of 2: 0, 2.
        self.assertAllClose(found, [[0.875], [1.0], [0.0]])

    @parameterized.parameters(
        ({"user_features": ()}, "must name at least one feature"),
        ({"item_units": (4, 2)}, r"same width. Received: user_units=\(5, 3\)"),
        ({"temperature": 0.0}, r"must be above 0. Received: temperature=0\.0"),
    )
    def test_rejects(self, params, message):
        with self.assertRaisesRegex(ValueError, message):
            _params(**params)


def _columns(movies):
    return {
        "user": tf.constant([1, 2, 3], tf.int64),
        "movie": tf.constant(movies, tf.int64),
        "liked": tf.constant([1.0, 1.0, 0.0]),
    }
