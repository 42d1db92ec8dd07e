"""Tables that several features share by name."""

import dataclasses
import random
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.embedding.keras import arguments as keras_arguments
from monolith_tf.embedding.keras.keys import Keys
from monolith_tf.embedding.keras.layer import Embedding
from monolith_tf.embedding.keras.shared_spec import SharedFeature
from monolith_tf.embedding.keras.shared_spec import SharedTable
from monolith_tf.embedding.lookup import combiners
from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping
from monolith_tf.types import Nest
from monolith_tf.types import RaggedTensor
from monolith_tf.types import Shapes
from monolith_tf.types import Tensor
from monolith_tf.types import Training

_OF_LAYER = ("embeddings_initializer", "embeddings_regularizer", "optimizer")


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class SharedEmbedding(tf_keras.layers.Layer):
    """Embeds features; several features may share a table by its name.

        rows[feature]   = the rows of `table[feature]` for the feature's keys
        output[feature] = combiner[feature](rows[feature])

    Each table is an `Embedding`, which makes, trains and saves its rows. The gradients
    of all features of a table are summed before its rows are updated.

    Args:
      tables: `SharedTable`s, or mappings of their attributes; names differ.
      features: Feature -> `SharedFeature`, a mapping of its attributes, or just the
        name of its table.
      seed: Seed of new rows, together with the tables' names; random by default.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: feature -> integers or strings, `[batch]`, `[batch, length]`, or ragged
    or sparse. Sparse keys are `[batch, length]`: the keys of an example are sorted by
    column, and gaps are closed.

    Output shape: feature -> `[batch, output_dim]`; without a combiner the keys' shape
    followed by `output_dim`, ragged if the keys are and `max_len` is not set.

    Attributes:
      embeddings: Table name -> its `Embedding`.

    Raises:
      ValueError: If names repeat, a feature names a missing table, or a call has
        features that the layer does not have.
      tf.errors.InvalidArgumentError: If a key is not below its table's `input_dim`.

    Example:
      >>> layer = SharedEmbedding(
      ...     tables=[{"name": "item", "output_dim": 4}],
      ...     features={
      ...         "target": "item",
      ...         "clicked": {"table": "item", "combiner": "mean"},
      ...     },
      ... )
      >>> clicked = tf.ragged.constant([[7, 8], []], dtype=tf.int64)
      >>> outputs = layer({"target": tf.constant([7, 9]), "clicked": clicked})
      >>> outputs["target"].shape, outputs["clicked"].shape
      (TensorShape([2, 4]), TensorShape([2, 4]))
    """

    def __init__(
        self,
        tables: Sequence[SharedTable | JsonMapping],
        features: Mapping[str, SharedFeature | JsonMapping | str],
        *,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        # Keys that are floats must not be cast to half precision.
        super().__init__(**{"autocast": False} | kwargs)
        parsed = [_parsed(SharedTable, table) for table in tables]
        self._tables = {table.name: table for table in parsed}
        self._features = {
            name: _parsed(
                SharedFeature, {"table": value} if isinstance(value, str) else value
            )
            for name, value in features.items()
        }
        self._check(parsed)
        self.seed = random.randrange(2**31) if seed is None else seed
        self.embeddings = {
            name: Embedding(
                table.output_dim,
                table.embeddings_initializer,
                table.optimizer,
                embeddings_regularizer=table.embeddings_regularizer,
                seed=self.seed,
                name=name,
                dtype="float32",  # Rows are combined at full precision.
            )
            for name, table in self._tables.items()
        }
        self._keys = {name: Keys(name) for name in self._tables}
        self.supports_masking = True
        self._supports_ragged_inputs = True

    def build(self, input_shape: Shapes) -> None:
        """Makes the tables."""
        for name, embedding in self.embeddings.items():
            with tf.name_scope(embedding.name):
                embedding.build(None)
            size = self._tables[name].input_dim
            if size is not None:
                embedding.make_rows(tf.range(size, dtype=tf.int64))
        super().build(input_shape)

    @tf.autograph.experimental.do_not_convert
    def call(
        self, inputs: Mapping[str, Tensor], training: Training = None
    ) -> dict[str, Tensor | RaggedTensor]:
        """Looks up the keys of all features."""
        unknown = sorted(set(inputs) - set(self._features))
        if unknown:
            raise ValueError(
                "`inputs` must hold features of the layer. Received: "
                f"{unknown}; the layer has {sorted(self._features)}."
            )
        keys = {name: self._keys_of(name, values) for name, values in inputs.items()}
        outputs: dict[str, Tensor] = {}
        for table in self._tables:
            names = [name for name in keys if self._features[name].table == table]
            if names:
                flat = [_flat(keys[name]) for name in names]
                rows = self._rows(table, flat, training)
                pieces = tf.split(
                    rows, tf.stack([tf.size(k) for k in flat]), num=len(names)
                )
                outputs |= dict(zip(names, pieces, strict=True))
        return {name: self._combined(name, outputs[name], keys[name]) for name in keys}

    def compute_mask(
        self, inputs: Mapping[str, Tensor], mask: Nest = None
    ) -> dict[str, Tensor | RaggedTensor | None]:
        """Returns feature -> mask of keys that are not padding, or None."""
        del mask
        return {name: self._mask(name, values) for name, values in inputs.items()}

    def get_config(self) -> JsonDict:
        """Returns the constructor's arguments."""
        tables = []
        for name, table in self._tables.items():
            of_layer = self.embeddings[name].get_config()
            config = dataclasses.asdict(table)
            tables.append(config | {key: of_layer[key] for key in _OF_LAYER})
        features = {
            name: dataclasses.asdict(feature)
            for name, feature in self._features.items()
        }
        return super().get_config() | {
            "tables": tables,
            "features": features,
            "seed": self.seed,
            **keras_arguments.NAMES_OF_KERAS,
            **keras_arguments.of_every_layer(self),
        }

    @classmethod
    def from_config(cls, config: JsonDict) -> "SharedEmbedding":
        """Returns a layer from a `get_config`, also of monolith_tf 0.1.0."""
        mark = {
            key: config[key] for key in keras_arguments.NAMES_OF_KERAS if key in config
        }
        arguments = keras_arguments.with_names_of_keras(config)
        arguments["tables"] = [
            keras_arguments.with_names_of_keras({**table, **mark})
            for table in config["tables"]
        ]
        return cls(**arguments)

    def _check(self, tables: Sequence[SharedTable]) -> None:
        names = [table.name for table in tables]
        if len(set(names)) < len(names):
            raise ValueError(f"`tables` must differ in name. Received: names={names}.")
        for name, feature in self._features.items():
            if feature.table not in self._tables:
                raise ValueError(
                    f"Feature {name!r} must name one of the tables. Received: "
                    f"table={feature.table!r}; the tables are {names}."
                )

    def _rows(self, table: str, keys: Sequence[Tensor], training: Training) -> Tensor:
        """Returns the concatenated rows of all keys of a table's features."""
        spec, embedding = self._tables[table], self.embeddings[table]
        flat = tf.concat(keys, axis=0)
        if spec.input_dim is None:
            return embedding(flat, training=training)
        message = (
            f"Keys of table `{table}` must be from 0 and below its `input_dim`, "
            f"{spec.input_dim}. Leave `input_dim` out where keys are not numbered."
        )
        is_known = tf.reduce_all((flat >= 0) & (flat < spec.input_dim))
        with tf.control_dependencies([tf.debugging.Assert(is_known, [message])]):
            flat = tf.identity(flat)
        if embedding.embeddings_regularizer is None:
            return embedding(flat, training=training)
        # A regularizer covers the rows that a call reads, so read the whole table.
        everything = tf.range(spec.input_dim, dtype=tf.int64)
        rows = embedding(tf.concat([everything, flat], axis=0), training=training)
        return rows[spec.input_dim :]

    def _keys_of(self, name: str, values: Tensor) -> Tensor | RaggedTensor:
        """Returns a feature's keys to look up; ragged if they will be combined."""
        feature = self._features[name]
        values, is_padding = self._padding(values)
        to_int64 = self._keys[feature.table].as_int64
        if isinstance(values, tf.RaggedTensor):
            keys = values.with_flat_values(to_int64(values.flat_values))
        else:
            keys = to_int64(values)
        if feature.combiner is not None:
            if keys.shape.rank == 1:
                keys, is_padding = keys[:, tf.newaxis], is_padding[:, tf.newaxis]
            if keys.shape.rank != 2:
                raise ValueError(
                    f"Feature {name!r} must have shape [batch] or [batch, length] to "
                    f"be combined. Received: shape={keys.shape}."
                )
            if self._tables[feature.table].mask_zero:
                keys = tf.ragged.boolean_mask(keys, ~is_padding)
            elif not isinstance(keys, tf.RaggedTensor):
                keys = tf.RaggedTensor.from_tensor(keys)
            keys = keys.with_row_splits_dtype(tf.int64)
        return self._cut(name, keys)

    def _cut(self, name: str, keys: Tensor) -> Tensor:
        max_len = self._features[name].max_len
        return keys if max_len is None or keys.shape.rank < 2 else keys[:, :max_len]

    def _padding(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Returns values as a tensor, ragged if sparse, and which are padding."""
        if isinstance(values, tf.SparseTensor):
            values = _ragged(values)
        elif not isinstance(values, tf.RaggedTensor):
            values = tf.convert_to_tensor(values)
        return values, tf.equal(values, tf.zeros([], values.dtype))

    def _combined(
        self, name: str, rows: Tensor, keys: Tensor | RaggedTensor
    ) -> Tensor | RaggedTensor:
        feature = self._features[name]
        dim = self._tables[feature.table].output_dim
        if feature.combiner is not None:
            rows = combiners.combine(rows, keys.row_splits, feature.combiner)
        elif not isinstance(keys, tf.RaggedTensor):
            shape = keys.shape.concatenate([dim])
            rows = tf.reshape(rows, tf.concat([tf.shape(keys), [dim]], axis=0))
            rows = tf.ensure_shape(rows, shape)
        else:
            rows = keys.with_flat_values(rows)
            if feature.max_len is not None:
                rows = rows.to_tensor(shape=[None, feature.max_len, dim])
        return tf.cast(rows, self.compute_dtype)

    def _mask(self, name: str, values: Tensor) -> Tensor | RaggedTensor | None:
        feature = self._features[name]
        values, is_padding = self._padding(values)
        is_padded = isinstance(values, tf.RaggedTensor) and feature.max_len is not None
        has_padding = self._tables[feature.table].mask_zero
        if feature.combiner is not None or not (has_padding or is_padded):
            return None
        if has_padding:
            mask = self._cut(name, ~is_padding)
        else:
            mask = self._cut(name, tf.ones_like(is_padding, tf.bool))
        return mask.to_tensor(shape=[None, feature.max_len]) if is_padded else mask


def _ragged(sparse: tf.SparseTensor) -> RaggedTensor:
    """Returns the values of each row, sorted by column, without gaps."""
    if sparse.shape.rank not in (2, None):
        raise ValueError(
            "Sparse keys must have shape [batch, length]. "
            f"Received: shape={sparse.shape}."
        )
    ordered = tf.sparse.reorder(sparse)
    num_rows = tf.ensure_shape(ordered.dense_shape, [2])[0]
    return tf.RaggedTensor.from_value_rowids(
        ordered.values, ordered.indices[:, 0], num_rows, validate=False
    )


def _flat(keys: Tensor | RaggedTensor) -> Tensor:
    if isinstance(keys, tf.RaggedTensor):
        return keys.flat_values
    return tf.reshape(keys, [-1])


def _parsed(kind: Any, value: Any) -> Any:
    """Converts a mapping of fields to a dataclass; returns others unchanged."""
    if isinstance(value, kind):
        return value
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise ValueError(
            f"A `{kind.__name__}` must have keys of {known}. Received: {unknown}."
        )
    return kind(**value)
