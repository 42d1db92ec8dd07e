"""A drop-in for `tf_keras.layers.Embedding` without a vocabulary."""

import dataclasses
import random
import re
import threading
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from monolith_tf import saving
from monolith_tf.embedding.keras import arguments as keras_arguments
from monolith_tf.embedding.keras import contexts as keras_contexts
from monolith_tf.embedding.keras import saving as keras_saving
from monolith_tf.embedding.keras.keys import Keys
from monolith_tf.embedding.keras.rows import KeyedRows
from monolith_tf.embedding.keras.training import RowTraining
from monolith_tf.embedding.lookup import expansion
from monolith_tf.embedding.placement import HOST
from monolith_tf.embedding.spec import DEFAULT_SLICE
from monolith_tf.embedding.spec import SliceSpec
from monolith_tf.types import Identifier
from monolith_tf.types import JsonDict
from monolith_tf.types import Nest
from monolith_tf.types import RaggedTensor
from monolith_tf.types import Shapes
from monolith_tf.types import Tensor
from monolith_tf.types import Training

# Shared by all layers: a layer with its own lock could not be copied.
_BUILDING = threading.RLock()


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class Embedding(tf_keras.layers.Layer):
    """Maps keys to trainable vectors, with one row per key and no collisions.

        y[...] = rows[x[...]]

    Replaces `tf_keras.layers.Embedding(input_dim, dim)`, without `input_dim`: a key is
    any 64-bit integer, or any string by a 63-bit hash (among n strings,
    n (n - 1) / 2^64 pairs are expected to collide). The first training call with a key
    makes its row; otherwise a key without a row reads zeros. As in Keras' own layer, a
    call trains with `training=True`, or without `training` under a tape.

    The layer has its own optimizer for the rows. A step sums the gradients of a row
    over all calls of the layer, and updates the row once. The update happens while the
    gradient of the layer's weight is computed, so a custom loop must compute that once
    per step. If the optimizer of `compile` scales the loss, the layer unscales its
    gradients, and a gradient that is not finite makes both skip the step; a custom loop
    must add `sum(model.losses)` to the loss for this, as `fit` does. A layer that is
    not `trainable` neither trains nor makes rows.

    With other optimizers, a step skips the rows whose gradient is not finite.
    `dropped_gradients` counts them, and a warning is logged when rows are saved,
    counted or read by `get_rows` or `get_weights`.

    The layer runs in one process and on the CPU, without `jit_compile` and distribution
    strategies. Its rows in use are saved with the model: in a SavedModel, a `.keras`
    file, and by `export`, `save_weights` and `get_weights`; not in the old `.h5` form.

    Args:
      dim: Values per row, at least 1.
      embeddings_initializer: Initializer of new rows: a name ("uniform" in
        [-0.05, 0.05), "normal", "truncated_normal", "zeros"), a mapping such as
        `{"name": "normal", "stddev": 0.01}`, or Keras' initializer of that kind.
      optimizer: Optimizer of the rows: a name such as "adam", "adagrad" or "ftrl", with
        Keras' formula and defaults; or a mapping with hyperparameters,
        `{"name": "adagrad", "learning_rate": 0.1}`, where the learning rate may be a
        mapping that describes a `ScheduleSpec`; or a spec of `optimizer_spec`. By
        default Adagrad with a learning rate of 0.05. The layer counts the steps.
      embeddings_regularizer: A penalty on the distinct rows that a call reads.
      clip_norm: Largest norm of a row's gradient; larger ones are scaled down to it.
      mask_zero: Whether key 0 (or string "") is padding that later layers mask.
      input_length: Number of keys per example, one number or several, if the input's
        shape does not specify it.
      seed: Seed of new rows, together with the layer's name; by default drawn with
        Python's `random`, which `tf_keras.utils.set_random_seed` seeds.
      capacity: Keys there is first room for, about a thousand by default; the table
        grows on demand. Memory is allocated as rows are made.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: integers or strings, `[...]`; or ragged.
    Output shape: `[..., dim]`, ragged if the input is.

    Raises:
      ValueError: If an argument is out of range; if it is called under `jit_compile` or
        a distribution strategy, or with integers after strings.
      tf.errors.InvalidArgumentError: If the gradient of a step is computed twice.
      tf.errors.ResourceExhaustedError: If memory runs out.

    Example:
      >>> layer = Embedding(4, embeddings_initializer={"name": "constant", "value": 2})
      >>> layer(tf.constant([[7, -3]], tf.int64), training=True).shape
      TensorShape([1, 2, 4])
      >>> layer(tf.constant([7, 8], tf.int64)).numpy()
      array([[2., 2., 2., 2.],
             [0., 0., 0., 0.]], dtype=float32)
    """

    def __init__(
        self,
        dim: int,
        embeddings_initializer: Identifier = "uniform",
        optimizer: Identifier = "monolith_adagrad",
        *,
        embeddings_regularizer: Identifier = None,
        clip_norm: float | None = None,
        mask_zero: bool = False,
        input_length: int | Sequence[int | None] | None = None,
        seed: int | None = None,
        capacity: int | None = None,
        **kwargs: Any,
    ) -> None:
        if capacity is not None and capacity < 1:
            raise ValueError(
                f"`capacity` must be at least 1. Received: capacity={capacity}."
            )
        # Keys that are floats must not be cast to half precision.
        super().__init__(**{"autocast": False} | kwargs)
        self.dim = dim
        self.optimizer = keras_arguments.row_optimizer(optimizer)
        self.embeddings_initializer = keras_arguments.initializer(
            embeddings_initializer
        )
        self.embeddings_regularizer = tf_keras.regularizers.get(embeddings_regularizer)
        self.clip_norm = clip_norm
        self.mask_zero = mask_zero
        self.supports_masking = mask_zero
        self.input_length = input_length
        self.seed = random.randrange(2**31) if seed is None else seed
        self.capacity = capacity
        self._supports_ragged_inputs = True
        self._keys = Keys(self.name)
        self._spec = SliceSpec(
            name=DEFAULT_SLICE,
            dim=dim,
            initializer=self.embeddings_initializer,
            optimizer=self.optimizer,
            clip_norm=clip_norm,
        )

    def build(self, input_shape: Shapes) -> None:
        """Makes the table, unless the layer has one; that one keeps its rows."""
        with _BUILDING:  # The first calls of several threads share one table.
            if not self.built:
                self._build(input_shape)

    def _build(self, input_shape: Shapes) -> None:
        keras_contexts.check_strategy(self.name)
        self._rows = KeyedRows(
            re.sub(r"[^\w.-]", "_", self.name),
            self._spec,
            seed=self.seed,
            capacity=self.capacity,
        )
        # Its value is unused; the rows are updated while its gradient is computed.
        self._anchor = self.add_weight(
            "anchor",
            shape=[],
            dtype=tf.float32,  # Like the rows and their gradients.
            initializer="zeros",
            experimental_autocast=False,
        )
        self._step = self.add_weight(
            "step", shape=[], dtype=tf.int64, initializer="zeros", trainable=False
        )
        self._saved_rows = keras_saving.SavedRows(self.name, self._rows)
        weight = keras_saving.RowsWeight(f"{self.name}/rows", self._saved_rows)
        self._add_trackable(weight, trainable=False)
        self._serving = keras_saving.Serving(self._rows)
        self._training = RowTraining(
            self.name,
            self._rows,
            anchor=self._anchor,
            step=self._step,
            is_half=lambda: keras_contexts.is_half(self),
        )
        self.add_loss(self._training.scale_probe)
        super().build(input_shape)

    # No Python control flow depends on tensors, and a conversion takes long.
    @tf.autograph.experimental.do_not_convert
    def call(self, inputs: Tensor, training: Training = None) -> Tensor | RaggedTensor:
        """Looks up keys."""
        keras_contexts.check_graph(self.name)
        if isinstance(inputs, tf.RaggedTensor):
            return inputs.with_flat_values(self.call(inputs.flat_values, training))
        training = keras_contexts.known_training(self.name, training)
        with tf.device(HOST):
            keys = self._keys.as_int64(tf.convert_to_tensor(inputs))
            rows = self._lookup(tf.reshape(keys, [-1]), training)
        rows = tf.reshape(rows, tf.concat([tf.shape(keys), [self.dim]], axis=0))
        rows.set_shape(self.compute_output_shape(keys.shape))
        return tf.cast(rows, self.compute_dtype)

    def compute_mask(self, inputs: Tensor, mask: Nest = None) -> Tensor | None:
        """Returns a mask of keys that are not padding; None without `mask_zero`."""
        if not self.mask_zero:
            return None
        if not isinstance(inputs, tf.RaggedTensor):
            inputs = tf.convert_to_tensor(inputs)
        return tf.not_equal(inputs, tf.zeros([], inputs.dtype))

    def compute_output_shape(self, input_shape: Shapes) -> tf.TensorShape:
        """Returns the input's shape followed by `dim`."""
        shape = tf.TensorShape(input_shape)
        if self.input_length is not None and shape.rank is not None:
            lengths = np.atleast_1d(np.array(self.input_length)).tolist()
            known = tf.TensorShape([*shape[:1], *lengths])
            if not known.is_compatible_with(shape):
                raise ValueError(
                    "`input_length` must agree with the input's shape. Received: "
                    f"input_length={self.input_length}, input of shape {shape}."
                )
            shape = shape.merge_with(known)
        return shape.concatenate([self.dim])

    def num_rows(self) -> int:
        """Returns the number of keys with a row."""
        if not self.built:
            return 0
        self._saved_rows.warn_of_dropped()
        return self._rows.num_rows()

    def dropped_gradients(self) -> int:
        """Returns the number of row gradients dropped because they were not finite.

        Counts since the layer was made, once for each row of a step; those rows were
        not updated. Does not count steps that a loss-scaling optimizer skips.
        """
        return self._saved_rows.num_dropped() if self.built else 0

    def make_rows(self, keys: Tensor) -> None:
        """Makes rows for keys without one, as a training call does.

        Args:
          keys: Integers or strings of any shape.
        """
        self._built_rows()
        keys = self._keys.as_int64(tf.convert_to_tensor(keys))
        self._rows.lookup(tf.unique(tf.reshape(keys, [-1]))[0], insert=True)

    def get_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns all keys with a row, `[n]`, sorted, and their rows, `[n, dim]`.

        The keys of strings are their hashes.
        """
        arrays = self._built_rows().arrays()
        order = np.argsort(arrays["keys"])
        return arrays["keys"][order], arrays["weights"][order]

    def set_rows(self, keys: Tensor, rows: Tensor) -> None:
        """Writes rows, and inserts those of new keys.

        Resets their optimizer state; other rows do not change.

        Args:
          keys: Distinct integers or strings, `[n]`.
          rows: `[n, dim]`, finite in float32.

        Raises:
          ValueError: If the shapes do not match, a key is repeated, or a row has NaN or
            infinity; no row is written then.
        """
        self._built_rows()
        given = tf.convert_to_tensor(keys)
        keys = self._keys.as_int64(given).numpy()
        with np.errstate(over="ignore"):  # Overflows are refused below.
            rows = np.asarray(rows, np.float32)
        if keys.ndim != 1 or rows.shape != (len(keys), self.dim):
            raise ValueError(
                f"`keys` and `rows` must have shapes [n] and [n, {self.dim}]. "
                f"Received: keys of shape {keys.shape}, rows of shape {rows.shape}."
            )
        if len(np.unique(keys)) != len(keys):
            raise ValueError(
                f"`keys` must differ. Received: {len(keys)} keys, "
                f"{len(np.unique(keys))} of them different."
            )
        wrong = np.argwhere(~np.isfinite(rows))
        if len(wrong):
            row, column = wrong[0]
            raise ValueError(
                f"`rows` of embedding `{self.name}` must be finite, as float32. "
                f"Received: {rows[row, column]} at [{row}, {column}], of key "
                f"{given.numpy()[row]!s}; {len(np.unique(wrong[:, 0]))} of {len(rows)} "
                "rows have such values. Leave their keys out, or mend the values "
                "(`np.nan_to_num`)."
            )
        self._rows.assign(keys, rows)

    def get_config(self) -> JsonDict:
        """Returns the constructor's arguments."""
        return super().get_config() | {
            "dim": self.dim,
            "embeddings_initializer": dataclasses.asdict(self.embeddings_initializer),
            "optimizer": dataclasses.asdict(self.optimizer),
            **keras_arguments.NAMES_OF_KERAS,
            **keras_arguments.of_every_layer(self),
            "embeddings_regularizer": tf_keras.regularizers.serialize(
                self.embeddings_regularizer
            ),
            "clip_norm": self.clip_norm,
            "mask_zero": self.mask_zero,
            "input_length": self.input_length,
            "seed": self.seed,
            "capacity": self.capacity,
        }

    @classmethod
    def from_config(cls, config: JsonDict) -> "Embedding":
        """Returns a layer from a `get_config`, also of monolith_tf 0.1.0."""
        return cls(**keras_arguments.with_names_of_keras(config))

    def save_own_variables(self, store: Any) -> None:
        """Writes anchor, step and rows into a `.keras` or `.weights.h5` file."""
        store["anchor"] = self._anchor.numpy()
        store["step"] = self._step.numpy()
        for name, array in self._built_rows().arrays().items():
            store[name] = array

    def load_own_variables(self, store: Mapping[str, np.ndarray]) -> None:
        """Restores the variables that `save_own_variables` wrote."""
        self._built_rows().restore(store)
        self._anchor.assign(np.asarray(store["anchor"]))
        self._step.assign(np.asarray(store["step"]))

    def _trackable_children(
        self, save_type: str = "checkpoint", **kwargs: Any
    ) -> JsonDict:
        children = super()._trackable_children(save_type, **kwargs)
        saves = save_type == "savedmodel" or saving.is_exporting()
        if saves and self.built:
            children["served_rows"] = self._serving.served()
        return children

    def _lookup(self, keys: Tensor, training: bool | None) -> Tensor:
        """Returns rows of keys, `[n, dim]`, float32."""
        if saving.is_saving():
            return self._serving.served().read(keys)
        self._serving.release()
        learns = training is not False and self.trainable
        learns = learns and not (training is None and keras_contexts.is_planned())
        inserts = learns and (training or self._training.is_recorded())
        # A function traced without a tape may later be differentiated as a whole, so
        # its rows need a gradient. It may also never be: a call without `training` and
        # tape therefore inserts missing rows only when their gradient arrives.
        learns = inserts or (learns and keras_contexts.is_in_function())
        if not learns and self.embeddings_regularizer is None:
            return self._rows.read(keys)
        unique, places = tf.unique(keys)
        if learns:
            rows = self._training.read(unique, insert=inserts)  # [unique, dim]
        else:
            rows = self._rows.read(unique)
        if self.embeddings_regularizer is not None:
            self.add_loss(self.embeddings_regularizer(rows))
        return expansion.expand(rows, places)

    def _built_rows(self) -> keras_saving.SavedRows:
        if not self.built:
            self.build(None)
        return self._saved_rows
