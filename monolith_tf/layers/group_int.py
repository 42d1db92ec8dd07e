"""Products between two lists of group embeddings."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.layers import activations
from monolith_tf.layers import mlp
from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import initializers
from monolith_tf.layers.parts import input_shapes
from monolith_tf.layers.parts import merge
from monolith_tf.types import Identifier
from monolith_tf.types import Nest
from monolith_tf.types import Shapes


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class GroupInt(base.Layer):
    """Crosses every group on the left with every group on the right.

        pair[l, r] = left[l] * right[r]                  # "multiply", [batch, dim]
        pair[l, r] = sum(left[l] * right[r], axis=-1)    # "dot", [batch, 1]
        pair[l, r] *= attention_mlp(pair[l, r])          # with attention

    Pairs are in the order of `l`, then `r`. By default, attention neither normalizes
    nor sums the pairs; `attention_softmax` and `attention_pool` together give the
    attentional factorization machine.

    Source: Rendle, "Factorization machines", ICDM 2010; attention, Xiao et al.,
    "Attentional factorization machines", IJCAI 2017 (arXiv:1708.04617).

    Args:
      interaction_type: "multiply" or "dot".
      use_attention: Weights the pairs of "multiply" by an `MLP`, one number each.
      attention_units: Widths of its layers, the last of which is 1.
      activation: Activation of its hidden layers; None is linear.
      initializer: Initializer of its kernels; None is "glorot_normal".
      regularizer: Penalty on its kernels.
      out_type: "concat", "stack" or None; see the output shape.
      keep_list: Returns a single tensor as a list of one.
      attention_softmax: Normalizes the attention over the pairs.
      attention_pool: Sums the weighted pairs.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: A pair `(left, right)`; each side is a list of `[batch, dim]` or one
    `[batch, groups, dim]`, of one width known at build time.
    Output shape: With `pairs` the product of the sides' groups, "concat" is
    `[batch, pairs * dim]`, "stack" `[batch, pairs, dim]` and None a list of
    `[batch, dim]`. For "dot", "concat" and "stack" are `[batch, pairs]` and None a list
    of `[batch, 1]`. With `attention_pool` there is one pair.

    Raises:
      ValueError: If an argument is unknown, attention is used with "dot" or without
        units that end in 1, or the groups differ in width.

    Example:
      >>> left, right = [tf.ones([8, 16])] * 2, [tf.ones([8, 16])] * 3
      >>> GroupInt()((left, right)).shape
      TensorShape([8, 96])
    """

    def __init__(
        self,
        interaction_type: str = "multiply",
        use_attention: bool = False,
        attention_units: Sequence[int] | None = None,
        activation: Identifier = "relu",
        initializer: Identifier = None,
        regularizer: Identifier = None,
        out_type: str | None = merge.MergeType.CONCAT,
        keep_list: bool = False,
        attention_softmax: bool = False,
        attention_pool: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        activations.get(activation)
        self.interaction_type = interaction_type
        self.use_attention = use_attention
        self.attention_units = None if attention_units is None else [*attention_units]
        self.activation = activation
        self.initializer = initializers.get(initializer, "glorot_normal")
        self.regularizer = tf_keras.regularizers.get(regularizer)
        self.out_type = merge.check_merge_type("out_type", out_type)
        self.keep_list = keep_list
        self.attention_softmax = attention_softmax
        self.attention_pool = attention_pool
        self._check_arguments()
        self.attention_mlp: Any = self._make_attention() if use_attention else None

    def _check_arguments(self) -> None:
        if self.interaction_type not in ("multiply", "dot"):
            raise ValueError(
                "`interaction_type` must be 'multiply' or 'dot'. "
                f"Received: interaction_type={self.interaction_type!r}."
            )
        if self.use_attention and self.interaction_type == "dot":
            raise ValueError(
                "`use_attention` needs `interaction_type='multiply'`. "
                "Received: interaction_type='dot'."
            )
        units = self.attention_units
        if self.use_attention and (not units or units[-1] != 1):
            raise ValueError(
                "`attention_units` must be widths that end in 1. "
                f"Received: attention_units={units and list(units)}."
            )
        for name in ("attention_softmax", "attention_pool"):
            if getattr(self, name) and not self.use_attention:
                raise ValueError(
                    f"`{name}` needs `use_attention=True`. "
                    f"Received: use_attention={self.use_attention}."
                )

    def _make_attention(self) -> mlp.MLP:
        units = list(self.attention_units or [])
        return mlp.MLP(
            units,
            activations=[self.activation] * (len(units) - 1) + [None],
            initializers=initializers.clone(self.initializer),
            kernel_regularizer=self.regularizer,
            name="attention_mlp",
            dtype=self.dtype_policy,
        )

    def build(self, input_shape: Shapes) -> None:
        if input_shapes.is_shape(input_shape) or len(input_shape) != 2:
            raise ValueError(
                "`inputs` must be a pair `(left, right)`. "
                f"Received: inputs.shape={input_shape}."
            )
        groups = []
        widths: set[int] = set()
        for name, side in zip(("left", "right"), input_shape, strict=True):
            groups.append(_num_groups(name, side))
            parts = [side] if input_shapes.is_shape(side) else side
            widths |= {base.static_width(name, part) for part in parts}
        if len(widths) > 1:
            raise ValueError(
                "All groups must have the same width. "
                f"Received: widths={sorted(widths)}."
            )
        pairs = groups[0] * groups[1]
        self._build_child(self.attention_mlp, [None, pairs, widths.pop()])
        super().build(input_shape)

    def call(self, inputs: Nest) -> Nest:
        base.require_floating("inputs", inputs)
        left, right = (_stack(side) for side in inputs)  # [batch, groups, dim]
        if self.interaction_type == "dot":
            return self._dots(left, right)
        pairs = left[:, :, tf.newaxis] * right[:, tf.newaxis]  # [batch, l, r, dim]
        count, dim = left.shape[1] * right.shape[1], left.shape[2]
        pairs = tf.reshape(pairs, [tf.shape(left)[0], count, dim])
        if self.attention_mlp is not None:
            pairs = self._attend(pairs)
        return merge.merge_tensor_list(pairs, self.out_type, keep_list=self.keep_list)

    def _dots(self, left: tf.Tensor, right: tf.Tensor) -> Nest:
        """Returns the inner products of all pairs."""
        dots = tf.matmul(left, right, transpose_b=True)  # [batch, l, r]
        count = left.shape[1] * right.shape[1]
        dots = tf.reshape(dots, [tf.shape(left)[0], count])
        if self.out_type is merge.MergeType.NONE:
            return tf.split(dots, count, axis=1)
        return [dots] if self.keep_list else dots

    def _attend(self, pairs: tf.Tensor) -> tf.Tensor:
        """Weights the pairs, `[batch, pairs, dim]`; pooling leaves one pair."""
        weights = self.attention_mlp(pairs)  # [batch, pairs, 1]
        if self.attention_softmax:
            weights = tf.nn.softmax(tf.cast(weights, tf.float32), axis=1)
            weights = tf.cast(weights, pairs.dtype)
        if self.attention_pool:
            return tf.matmul(weights, pairs, transpose_a=True)  # [batch, 1, dim]
        return pairs * weights

    def get_config(self) -> dict[str, Any]:
        units = self.attention_units
        return super().get_config() | {
            "interaction_type": self.interaction_type,
            "use_attention": self.use_attention,
            "attention_units": None if units is None else list(units),
            "activation": activations.serialize(activations.get(self.activation)),
            "initializer": initializers.serialize(self.initializer),
            "regularizer": tf_keras.regularizers.serialize(self.regularizer),
            "out_type": self.out_type,
            "keep_list": self.keep_list,
            "attention_softmax": self.attention_softmax,
            "attention_pool": self.attention_pool,
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        batch, features, dim = sizes.stack
        sides = (batch, features - 1, dim), (batch, 1, dim)
        return cls(use_attention=True, attention_units=[2, 1]), (sides,)


FFM = GroupInt


def _num_groups(name: str, side: Nest) -> int:
    """Returns the number of groups of one side from its shape or list of shapes."""
    stacked = input_shapes.is_shape(side)
    parts = [tf.TensorShape(part) for part in ([side] if stacked else side)]
    if not parts or any(part.rank != (3 if stacked else 2) for part in parts):
        raise ValueError(
            f"`{name}` must be a list of [batch, dim] or one [batch, groups, dim]. "
            f"Received: {name}.shape={side}."
        )
    return base.static_width(name, side, axis=1) if stacked else len(parts)


def _stack(side: Nest) -> tf.Tensor:
    return tf.stack(side, axis=1) if isinstance(side, (list, tuple)) else side
