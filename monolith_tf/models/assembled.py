"""A model assembled from the config alone: named layers and the heads on them."""

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

    A head's input that is wider gets a dense layer to width 1 of its own.
    """

    def __init__(self, spec: spec_lib.ModelSpec) -> None:
        """Makes the layers.

        Raises:
          ValueError: If there is no such layer, or its arguments do not fit it.
        """
        super().__init__(name="assembled")
        self._spec = spec
        self._blocks = {
            block.name: _layer(index, block) for index, block in enumerate(spec.blocks)
        }
        self._logits = {
            head.name or head.label: [
                tf_keras.layers.Dense(1, name=f"logit_{index}")
                for index, _ in enumerate(head.inputs)
            ]
            for head in spec.heads
        }

    def model_fn(self, inputs: base.Inputs, mode: base.Mode) -> base.EstimatorSpec:
        """See `base.Model.model_fn`."""
        values: dict[str, Any] = {}
        for block in self._spec.blocks:
            found = [
                value
                for entry in block.inputs
                for value in self._find(entry, inputs, values)
            ]
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
                    for value in [_join(head, self._find(entry, inputs, values))]
                ]
            )  # [batch]
            is_binary = head.loss == "log_loss"
            predictions[name] = tf.sigmoid(logits) if is_binary else logits
            if mode is not base.Mode.PREDICT:
                loss_fn = losses.log_loss if is_binary else losses.mse
                label = inputs.labels[head.label]
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

    def _find(
        self, entry: str, inputs: base.Inputs, blocks: dict[str, Any]
    ) -> list[Tensor]:
        """Returns what an entry of `inputs` stands for, one tensor or several."""
        reference = spec_lib.parse_reference(entry)
        name = reference.name
        groups = {
            "all": [*inputs.embeddings, *inputs.dense],
            "embeddings": list(inputs.embeddings),
            "dense": list(inputs.dense),
            **self._spec.groups,
        }
        if name in blocks:
            value = blocks[name]
            if reference.index is not None:
                value = value[reference.index]
            return list(value) if isinstance(value, list | tuple) else [value]
        if name in groups:
            suffix = f".{reference.part}" if reference.part else ""
            return [
                value
                for feature in groups[name]
                for value in self._find(feature + suffix, inputs, {})
            ]
        if reference.part == "mask":
            return [inputs.masks[name]]
        if reference.part is not None:
            return [inputs.slices[name][reference.part]]
        return [
            inputs.embeddings[name] if name in inputs.embeddings else inputs.dense[name]
        ]


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
