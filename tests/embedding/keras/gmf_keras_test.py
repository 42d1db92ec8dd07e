"""A factorization of users and items, with Keras' own layer and with this one."""

import numpy as np
import tensorflow as tf
import tf_keras

import monolith_tf as mt
from monolith_tf import testing

_USERS, _ITEMS, _GROUPS, _DIM = 100, 80, 4, 8
_STEPS, _BATCH = 300, 256


def _data(rng):
    """Pairs of users and items with labels: 9 of 10 are 1 where both are of a group."""
    users = rng.integers(0, _USERS, (_STEPS + 8) * _BATCH)
    items = rng.integers(0, _ITEMS, len(users))
    is_liked = users % _GROUPS == items % _GROUPS
    labels = (rng.random(len(users)) < np.where(is_liked, 0.9, 0.1)).astype(np.float32)
    return users, items, labels


def _start(rng, size):
    return rng.uniform(-0.05, 0.05, [size, _DIM]).astype(np.float32)


def _table(name, start, optimizer):
    if optimizer == "keras":
        layer = tf_keras.layers.Embedding(len(start), _DIM, name=name)
        layer.build(None)
        layer.set_weights([start])
    else:
        layer = mt.embedding.Embedding(_DIM, optimizer=optimizer, name=name)
        layer.set_rows(np.arange(len(start)), start)
    return layer


def _auc(labels, scores):
    """The share of pairs of a positive and a negative that are in order."""
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores, kind="stable")] = np.arange(1, len(scores) + 1)
    positive = labels == 1
    num, others = positive.sum(), (~positive).sum()
    return (ranks[positive].sum() - num * (num + 1) / 2) / (num * others)


class GmfKerasTest(testing.TestCase):
    def _trained(self, optimizer):
        """Trains a model, and returns its AUC on pairs that it was not trained on."""
        rng = np.random.default_rng(7)
        columns = _data(rng)
        user = tf_keras.Input([], dtype=tf.int64)
        item = tf_keras.Input([], dtype=tf.int64)
        rows = [
            _table("user", _start(rng, _USERS), optimizer)(user),
            _table("item", _start(rng, _ITEMS), optimizer)(item),
        ]
        kernel = tf_keras.initializers.Constant(rng.normal(size=[_DIM, 1]))
        score = tf_keras.layers.Dense(1, "sigmoid", kernel_initializer=kernel)
        model = tf_keras.Model([user, item], score(rows[0] * rows[1]))
        model.compile(tf_keras.optimizers.Adam(), "binary_crossentropy")
        split = _STEPS * _BATCH
        train, test = (
            [c[at] for c in columns] for at in (np.s_[:split], np.s_[split:])
        )
        model.fit(train[:2], train[2], batch_size=_BATCH, shuffle=False, verbose=0)
        return _auc(
            test[2], model.predict(test[:2], batch_size=_BATCH, verbose=0)[:, 0]
        )

    def test_a_factorization_learns_as_with_keras_own_layer(self):
        expected = self._trained("keras")
        self.assertGreater(expected, 0.75)
        self.assertNear(self._trained("adam"), expected, 0.005)
