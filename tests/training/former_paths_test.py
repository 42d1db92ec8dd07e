"""Checkpoints with towers as version 0.1.0 made them, restored into today's."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from monolith_tf import layers
from monolith_tf.models import tower
from monolith_tf.training import checkpoint
from monolith_tf.training import checkpoint_dir
from monolith_tf.training import dense_variables

_keras = tf_keras.layers
_X = np.random.default_rng(5).normal(size=(6, 3)).astype("float32")


class _Store:
    def save(self, directory, *, step):
        del step
        pathlib.Path(directory).mkdir()
        return {"tables": {}}


class _Listed(_keras.Layer):
    """A tower of AutoInt+, FiBiNET and FinalMLP."""

    def __init__(self, parts):
        super().__init__()
        self._layers = parts


def _normalized(units, use_bias):
    return [
        _keras.Dense(units, use_bias=use_bias),
        layers.BatchNormalization(epsilon=1e-5),
        _keras.Activation("relu"),
    ]


def _state(optimizer, parts, **towers):
    """A training state whose model has these towers, in which nothing is zero.

    Args:
      optimizer: An optimizer.
      parts: The layers of each tower.
      **towers: The model's attributes.
    """
    for one in parts:
        x = tf.constant(_X)
        for part in one:
            x = part(x)
    state = tf.Module()
    state.model = tf_keras.Model()
    for name, value in towers.items():
        setattr(state.model, name, value)
    optimizer.build([v for one in parts for p in one for v in p.trainable_variables])
    state.optimizers = [optimizer]
    draws = np.random.default_rng(len(state.model.variables))
    for variable in dense_variables.named(state).values():
        variable.assign(draws.uniform(0.5, 2.0, variable.shape).astype("float32"))
    return state


def _outputs(parts):
    outputs = []
    for one in parts:
        x = tf.constant(_X)
        for part in one:
            x = part(x, training=False) if "norm" in part.name else part(x)
        outputs.append(x.numpy())
    return outputs


def _restored(folder, former, ours):
    """Saves one state and restores it into the other, as jobs and warm starts do."""
    directory = checkpoint_dir.CheckpointDir(folder)
    saved = directory.save(former, _Store(), step=1, state={})
    dense_variables.restore(saved, ours)
    before = [variable.numpy() for variable in ours.model.variables]
    for variable in ours.model.variables:
        variable.assign(tf.zeros_like(variable))
    assert dense_variables.restore_matching(saved, ours, "model/") == []
    for variable, value in zip(ours.model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def _slots(state):
    """The optimizer's state by kind, without that of cancelled biases."""
    (optimizer,) = state.optimizers
    slots = {}
    for variable in optimizer.variables[1:]:
        kind, _, of = variable.name.partition("/")
        if not of.endswith("cancelled/bias:0"):
            slots.setdefault(kind, []).append(variable.numpy())
    return slots


def _check(former_parts, ours_parts, former, ours):
    for mine, old in zip(_outputs(ours_parts), _outputs(former_parts), strict=True):
        assert np.ptp(old) > 0.01
        np.testing.assert_allclose(mine, old, rtol=1e-5)
    old, mine = _slots(former), _slots(ours)
    assert old.keys() == mine.keys()
    for kind, values in old.items():
        for value, own in zip(values, mine[kind], strict=True):
            np.testing.assert_array_equal(own, value)


_OPTIMIZERS = {
    "a slot a variable": tf_keras.optimizers.Adagrad,
    "two a variable": tf_keras.optimizers.Adam,
    "two of each kind": lambda: tf_keras.optimizers.RMSprop(momentum=0.9),
}


@pytest.mark.parametrize("optimizer", _OPTIMIZERS.values(), ids=_OPTIMIZERS)
def test_cancelled_biases_leave_the_moving_means(optimizer, tmp_path):
    parts = [*_normalized(4, True), *_normalized(2, True)]
    for dense in (parts[0], parts[3]):
        dense._name = "cancelled"
    parts.append(_keras.Dense(1))
    former = _state(optimizer(), [parts], _deep=parts[:-1], _logit=parts[-1])
    deep = tower.hidden([4, 2])
    stack = [*deep.stack, _keras.Dense(1)]
    ours = _state(optimizer(), [stack], _deep=deep, _logit=stack[-1])
    _restored(tmp_path, former, ours)
    _check([parts], [stack], former, ours)


def test_dense_layers_with_their_activations(tmp_path):
    parts = [[_keras.Dense(4, "relu"), _keras.Dense(1)] for _ in range(2)]
    former = _state(tf_keras.optimizers.Adam(), parts, _towers=parts)
    mlps = [layers.MLP([4, 1], use_weight_norm=False) for _ in range(2)]
    stacks = [mlp.stack for mlp in mlps]
    ours = _state(tf_keras.optimizers.Adam(), stacks, _towers=mlps)
    _restored(tmp_path, former, ours)
    _check(parts, stacks, former, ours)


@pytest.mark.parametrize("count", [1, 2])
def test_towers_without_biases(count, tmp_path):
    parts = [[*_normalized(4, False), *_normalized(2, False)] for _ in range(count)]
    listed = [_Listed(one) for one in parts]
    mlps = [tower.hidden([4, 2]) for _ in range(count)]
    stacks = [mlp.stack for mlp in mlps]
    names = [
        {"_tower": one[0]} if count == 1 else {"_towers": one} for one in (listed, mlps)
    ]
    former = _state(tf_keras.optimizers.Adam(), parts, **names[0])
    ours = _state(tf_keras.optimizers.Adam(), stacks, **names[1])
    _restored(tmp_path, former, ours)
    _check(parts, stacks, former, ours)


def test_a_bias_that_nothing_cancels_is_an_error(tmp_path):
    parts = [_keras.Dense(4), _keras.Activation("relu")]
    former = _state(tf_keras.optimizers.Adam(), [parts], _deep=parts)
    mlp = layers.MLP([4], use_weight_norm=False, use_bias=False, hidden_output=True)
    ours = _state(tf_keras.optimizers.Adam(), [mlp.stack], _deep=mlp)
    saved = checkpoint_dir.CheckpointDir(tmp_path).save(
        former, _Store(), step=1, state={}
    )
    with pytest.raises(
        checkpoint.CheckpointError,
        match=r"the checkpoint has `model/_deep/0/bias` .*; the config lacks it",
    ):
        dense_variables.restore(saved, ours)
