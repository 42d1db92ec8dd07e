"""A model assembled from the config alone: named layers and the heads on them."""

from collections.abc import Collection
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf import layers
from monolith_tf import losses
from monolith_tf.models import base
from monolith_tf.models import spec as spec_lib
from monolith_tf.types import Tensor


class Assembled(base.Model):
    """Runs the blocks of a `ModelSpec` in order, then its heads.

        block = layer(join(inputs)),  logits = sum of the head's inputs, each of width 1

    A wider input of a head gets its own dense layer to width 1.
    """

    def __init__(self, spec: spec_lib.ModelSpec) -> None:
        """Makes the layers.

        Raises:
          ValueError: If a layer does not exist or rejects its arguments.
        """
        super().__init__(name="assembled")
        self._spec = spec
        self._blocks = {
            block.name: _layer(index, block) for index, block in enumerate(spec.blocks)
        }
        self._correction = layers.LogitCorrection()
        self._logits = {
            head.name or head.label: [
                tf_keras.layers.Dense(1, name=f"logit_{index}")
                for index, _ in enumerate(head.inputs)
            ]
            for head in spec.heads
        }

    def model_fn(self, inputs: base.Inputs, mode: base.Mode) -> base.EstimatorSpec:
        """See `base.Model.model_fn`."""
        return self._build(inputs, mode, ())

    def candidates_fn(
        self, inputs: base.Inputs, user_features: Collection[str]
    ) -> base.EstimatorSpec:
        """Runs blocks that read only the user's features once."""
        return self._build(inputs, base.Mode.PREDICT, user_features)

    def _build(
        self, inputs: base.Inputs, mode: base.Mode, user_features: Collection[str]
    ) -> base.EstimatorSpec:
        values: dict[str, Tensor] = {}
        once = set(user_features)  # Features and blocks that have one row.
        for block in self._spec.blocks:
            read = [n for entry in block.inputs for n in self._names(entry, inputs)]
            # A block that reads only user features runs on their one row. Every other
            # block gets them repeated, one row per item.
            is_users = bool(once) and once.issuperset(read)
            widened = set() if is_users else once
            found = [
                value
                for entry in block.inputs
                for value in self._find(entry, inputs, values, widened)
            ]
            if is_users:
                once.add(block.name)
            layer = self._blocks[block.name]
            if layer is None:
                values[block.name] = _join(block, found)
            elif block.join == "none":
                values[block.name] = layer(*found)
            else:
                values[block.name] = layer(_join(block, found))
        predictions, total = {}, []
        for head in self._spec.heads:
            name = head.name or head.label
            logits = tf.add_n(
                [
                    self._logit(layer, value)
                    for layer, entry in zip(
                        self._logits[name], head.inputs, strict=True
                    )
                    for value in [_join(head, self._find(entry, inputs, values, once))]
                ]
            )  # [batch]
            is_binary = head.loss == "log_loss"
            predictions[name] = tf.sigmoid(logits) if is_binary else logits
            if mode is not base.Mode.PREDICT:
                loss_fn = losses.log_loss if is_binary else losses.mse
                label = inputs.labels[head.label]
                if head.sample_rate is not None:
                    rate = inputs.labels[head.sample_rate]
                    logits = self._correction([logits, rate])
                total.append(head.weight * loss_fn(label, logits, inputs.weights))
        return base.EstimatorSpec(
            mode=mode,
            predictions=predictions,
            loss=tf.add_n(total) if total else None,
            head_labels={
                head.name or head.label: head.label for head in self._spec.heads
            },
        )

    def _logit(self, layer: tf_keras.layers.Layer, value: Tensor) -> Tensor:
        return (value if value.shape[-1] == 1 else layer(value))[:, 0]

    def _names(self, entry: str, inputs: base.Inputs) -> list[str]:
        """Returns the features, or the block, that an entry of `inputs` names."""
        name = spec_lib.parse_reference(entry).name
        groups = {
            "all": [*inputs.embeddings, *inputs.dense],
            "embeddings": list(inputs.embeddings),
            "dense": list(inputs.dense),
            **self._spec.groups,
        }
        return list(groups.get(name, [name]))

    def _find(
        self,
        entry: str,
        inputs: base.Inputs,
        blocks: dict[str, Tensor],
        widened: Collection[str],
    ) -> list[Tensor]:
        """Returns the tensors that an entry of `inputs` names.

        Features and blocks in `widened` have one row, which is repeated.
        """
        reference = spec_lib.parse_reference(entry)
        found = []
        for name in self._names(entry, inputs):
            value: Any
            if name in blocks:
                value = blocks[name]
                if reference.index is not None:
                    value = value[reference.index]
            elif reference.part == "mask":
                value = inputs.masks[name]
            elif reference.part is not None:
                value = inputs.slices[name][reference.part]
            elif name in inputs.embeddings:
                value = inputs.embeddings[name]
            else:
                value = inputs.dense[name]
            values = list(value) if isinstance(value, list | tuple) else [value]
            if name in widened:
                rows = inputs.rows_of_items(widened)
                values = [tf.gather(v, tf.zeros([rows], tf.int32)) for v in values]
            found += values
        return found


def _layer(index: int, block: spec_lib.BlockSpec) -> tf_keras.layers.Layer | None:
    if block.layer is None:
        return None
    class_ = getattr(layers, block.layer, None)
    if not (isinstance(class_, type) and issubclass(class_, tf_keras.layers.Layer)):
        raise ValueError(
            f"`model.blocks[{index}].layer`: monolith_tf.layers has no layer "
            f"{block.layer!r}."
        )
    try:
        return class_(name=block.name, **block.args)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`model.blocks[{index}].args`: {error}") from error


def _join(
    block: spec_lib.BlockSpec | spec_lib.HeadSpec, values: Sequence[Tensor]
) -> Any:
    how = getattr(block, "join", "concat")
    if how == "list":
        return list(values)
    if how == "stack":
        return tf.stack(list(values), axis=1)  # [batch, inputs, dim]
    return values[0] if len(values) == 1 else tf.concat(list(values), axis=-1)
