"""A Keras layer's rows in checkpoints, weight files and SavedModels."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from tf_keras.src.engine import base_layer_utils

from monolith_tf.embedding.keras.rows import KeyedRows
from monolith_tf.embedding.placement import HOST
from monolith_tf.embedding.shard.chunk import Chunk
from monolith_tf.embedding.shard.scatter import scatter
from monolith_tf.types import Tensor

_ARRAYS = ("keys", "weights", "state")


class SavedRows(tf.__internal__.tracking.Trackable):
    """The part of a checkpoint with the rows in use and their optimizer state.

    Args:
      name: Name of the table in errors.
      rows: The rows.
    """

    def __init__(self, name: str, rows: KeyedRows) -> None:
        self._name = name
        self._rows = rows
        self._dropped_before = 0  # Before the last restore.
        self._dropped_logged = 0

    def __setattr__(self, name: str, value: Any) -> None:
        # Loading a SavedModel sets these to its own functions, which do nothing.
        if name not in ("_serialize_to_tensors", "_restore_from_tensors"):
            super().__setattr__(name, value)

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns `keys` [n], `weights` [n, dim] and `state` [n, state_dim]."""
        self.warn_of_dropped()
        group = self._rows.group
        empty = np.zeros([0, group.dim], np.float32)
        state = np.zeros([0, group.state_dim], np.float32)
        chunks = [Chunk(np.zeros([0], np.int64), empty, state, {})]
        chunks += self._rows.chunks()
        columns = zip(*((c.ids, c.weights, c.state) for c in chunks), strict=True)
        return dict(zip(_ARRAYS, map(np.concatenate, columns), strict=True))

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Replaces all rows with the arrays of another `SavedRows`.

        Raises:
          ValueError: If an array is missing, rows have other widths, or keys are not
            64-bit integers or are repeated; nothing is replaced then.
        """
        missing = [name for name in _ARRAYS if name not in arrays]
        if missing:
            raise ValueError(
                f"The file must hold the rows of embedding `{self._name}`. Received: a "
                f"file without {missing}. Was it saved from a layer of another kind?"
            )
        keys, weights, state = (np.asarray(arrays[name]) for name in _ARRAYS)
        group = self._rows.group
        found = (weights.shape[1], state.shape[1])
        if found != (group.dim, group.state_dim):
            raise ValueError(
                f"The file must fit embedding `{self._name}`, whose rows have "
                f"{group.dim} weights and {group.state_dim} numbers of "
                f"optimizer state. Received: rows of {found[0]} and {found[1]}. Give "
                "the layer the `dim` and the `optimizer` it was saved with; weights "
                "alone are copied by `get_rows` and `set_rows`."
            )
        keys = self._checked_keys(keys, len(weights), len(state))
        self._dropped_before = self.num_dropped()
        self._rows.clear()
        self._rows.load(Chunk(keys, weights, state, {}))

    def _checked_keys(self, keys: np.ndarray, *lengths: int) -> np.ndarray:
        """Returns keys as int64; raises ValueError if they cannot be saved keys."""
        whole, wrong = _as_int64(keys)
        if keys.ndim != 1 or set(lengths) != {len(keys)}:
            found = (
                f"keys of shape {keys.shape}, {lengths[0]} rows, {lengths[1]} states"
            )
        elif wrong.any():
            found = f"{keys[wrong][0]} of {keys.dtype}, at [{np.argmax(wrong)}]"
        elif len(np.unique(whole)) != len(whole):
            values, counts = np.unique(whole, return_counts=True)
            twice = values[counts > 1]
            found = f"{twice[0]} twice, one of {len(twice)} such keys"
        else:
            return whole
        raise ValueError(
            f"Embedding `{self._name}` must be given an integer for each row, all of "
            f"them different, as its keys. Received: {found}. Keys are no weights to "
            "average or to round: pass on what `get_weights` gave, and average rows of "
            "equal keys by `get_rows` and `set_rows`."
        )

    def num_dropped(self) -> int:
        """Returns how many row gradients were not finite so far."""
        return self._dropped_before + self._rows.num_dropped()

    def warn_of_dropped(self) -> None:
        """Logs how many row gradients were not finite, if there are new ones."""
        dropped = self.num_dropped()
        if dropped > self._dropped_logged:
            logging.warning(
                "Embedding `%s` left out %d row gradients so far that were not finite; "
                "their rows stayed as they were. Look for NaN or infinity in the loss, "
                "the labels and the inputs, or lower the learning rate.",
                self._name,
                dropped,
            )
            self._dropped_logged = dropped

    def _serialize_to_tensors(self) -> dict[str, Tensor]:
        # In a graph, TensorFlow builds the functions that would save and restore these
        # tensors in a server of the SavedModel, which has its own copy of the rows.
        if not tf.executing_eagerly():
            return {}
        with tf.device(HOST):
            return {name: tf.constant(value) for name, value in self.arrays().items()}

    def _restore_from_tensors(self, restored_tensors: Mapping[str, Tensor]) -> None:
        if tf.executing_eagerly():
            self.restore(restored_tensors)
        elif restored_tensors:
            # A checkpoint may be restored in a graph, which runs in this process too.
            tensors = [restored_tensors[name] for name in _ARRAYS]
            tf.py_function(self._restore_in_order, tensors, [])

    def _restore_in_order(self, *tensors: Tensor) -> None:
        self.restore(dict(zip(_ARRAYS, tensors, strict=True)))


def _as_int64(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns keys as int64, and which of them may have changed their value."""
    if keys.dtype.kind == "f":
        limit = 2.0 ** (np.finfo(keys.dtype).nmant + 1)  # All integers below are exact.
        is_exact = (np.abs(keys) < limit) & (keys == np.round(keys))
        return np.where(is_exact, keys, 0).astype(np.int64), ~is_exact
    if keys.dtype.kind in "iu":
        return keys.astype(np.int64), keys > 2**63 - 1
    return np.zeros(keys.shape, np.int64), np.ones(keys.shape, bool)


class RowsWeight(base_layer_utils.TrackableWeightHandler):
    """Makes rows one of the weights of a layer.

    Args:
      name: A variable's name; TensorBoard shows it.
      rows: The rows.
    """

    def __init__(self, name: str, rows: SavedRows) -> None:
        super().__init__(rows)
        self.name = name
        self._rows = rows

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        # Callbacks read weights like variables.
        del copy  # It is always a copy.
        weights: np.ndarray = self._rows.arrays()["weights"]
        return weights if dtype is None else weights.astype(dtype)

    def __repr__(self) -> str:
        # Part of Keras' error for `.h5` files, which cannot hold the rows.
        return f"<`{self.name}`, which `.keras` and `.weights.h5` files hold>"


class ServedRows(tf.Module):
    """A copy of rows for a SavedModel: of exact size, without optimizer state."""

    def __init__(self, rows: KeyedRows) -> None:
        super().__init__(name="served_rows")
        self.index = tf.lookup.experimental.MutableHashTable(
            tf.int64, tf.int64, default_value=0
        )
        # Keys without a row read row 0.
        self.weights = tf.Variable(
            tf.zeros([rows.num_rows() + 1, rows.group.dim]), trainable=False
        )
        start = 1
        for chunk in rows.chunks(with_state=False):
            numbers = tf.range(start, start + len(chunk.ids), dtype=tf.int64)
            scatter(self.weights, numbers, chunk.weights)
            self.index.insert(tf.constant(chunk.ids), numbers)
            start += len(chunk.ids)

    def read(self, keys: Tensor) -> Tensor:
        """Returns weights of keys, `[n, dim]`; zeros for a key without a row."""
        return tf.gather(self.weights, tf.ensure_shape(self.index.lookup(keys), [None]))


class Serving:
    """Provides one copy of the rows to all functions of a SavedModel.

    Args:
      rows: The rows.
    """

    def __init__(self, rows: KeyedRows) -> None:
        self._rows = rows
        self._changes: tuple[int, ...] = ()
        self._served: ServedRows | None = None

    def served(self) -> ServedRows:
        """Returns a copy of the current rows, the same until they change."""
        with tf.init_scope():
            changes = self._rows.changes()
            if self._served is None or changes != self._changes:
                self._served = ServedRows(self._rows)
                self._changes = changes
        return self._served

    def release(self) -> None:
        """Frees the memory of the copy."""
        self._served = None
