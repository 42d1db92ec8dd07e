"""A GRU cell whose update is controlled by an attention score."""

from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.layers import activations
from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import initializers
from monolith_tf.types import Identifier
from monolith_tf.types import Nest
from monolith_tf.types import Shapes

_TYPES = ("AGRU", "AUGRU")


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class AGRUCell(base.Layer):
    """One step of a GRU, weighted by an attention score `a`.

        r, z = sigmoid([x | h] @ gate_kernel + gate_bias)        # in this order
        c    = activation([x | r * h] @ candidate_kernel + candidate_bias)
        plain:  h' = (1 - z) * h + z * c                         # without a score
        AGRU:   h' = (1 - a) * h + a * c
        AUGRU:  h' = (1 - a * z) * h + a * z * c

    A score of 0 keeps the state, and with a score of 1 AUGRU is the plain cell. The
    gates' biases start at one, the candidate's at zero.

    Source: Zhou et al., "Deep Interest Evolution Network for Click-Through Rate
    Prediction", AAAI 2019, section 4.4 (arXiv:1809.03672).

    Args:
      units: Width of the state, at least 1.
      att_type: "AGRU" or "AUGRU", in any letter case.
      activation: Activation of the candidate; None is "tanh".
      initializer: Initializer of the kernels; None is "he_normal".
      regularizer: Penalty on the kernels.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: list of the input `[batch, dim]`, the state `[batch, units]` and,
    except for the plain step, the score `[batch, 1]`.
    Output shape: the new state twice, as output and as state, `[batch, units]` each.

    Raises:
      ValueError: If `units` or `att_type` is out of range, or the input's shapes do not
        match.

    Example:
      >>> cell = AGRUCell(units=3, att_type="AUGRU")
      >>> output, state = cell([tf.ones([8, 4]), tf.zeros([8, 3]), tf.ones([8, 1])])
      >>> output.shape
      TensorShape([8, 3])
    """

    def __init__(
        self,
        units: int,
        att_type: str = "AGRU",
        activation: Identifier = None,
        initializer: Identifier = None,
        regularizer: Identifier = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        base.require_positive("units", units)
        self.units = int(units)
        self.att_type = check_type(att_type)
        self.activation = activations.get(
            "tanh" if activation is None else activation,
            name="activation",
            dtype=self.dtype_policy,
        )
        self.initializer = initializers.get(initializer, "he_normal")
        self.regularizer = tf_keras.regularizers.get(regularizer)

    @property
    def state_size(self) -> int:
        """Width of the state."""
        return self.units

    @property
    def output_size(self) -> int:
        """Width of the output."""
        return self.units

    def build(self, input_shape: Shapes) -> None:
        dim = self._check_shapes(input_shape)
        units = self.units
        self.gate_kernel = self._add_kernel(0, "gate_kernel", [dim + units, 2 * units])
        self.gate_bias = self.add_weight("gate_bias", [2 * units], initializer="ones")
        self.candidate_kernel = self._add_kernel(
            1, "candidate_kernel", [dim + units, units]
        )
        self.candidate_bias = self.add_weight(
            "candidate_bias", [units], initializer="zeros"
        )
        self._build_child(self.activation, [None, units])
        super().build(input_shape)

    def _check_shapes(self, input_shape: Shapes) -> int:
        """Returns the input's width."""
        if not isinstance(input_shape, (list, tuple)) or len(input_shape) not in (2, 3):
            raise ValueError(
                "`inputs` must be `[x, state]` or `[x, state, score]`. "
                f"Received: shapes={input_shape}."
            )
        shapes = [tf.TensorShape(shape) for shape in input_shape]
        widths = [shape[-1] if shape.rank == 2 else None for shape in shapes]
        if widths[1:] != [self.units, 1][: len(widths) - 1]:
            raise ValueError(
                f"`inputs` must have the shapes [batch, dim], [batch, {self.units}] "
                "and, with a score, [batch, 1]. "
                f"Received: shapes={[*map(str, shapes)]}."
            )
        return base.static_width("x", shapes[0])

    def _add_kernel(self, index: int, name: str, shape: list[int]) -> tf.Variable:
        return self.add_weight(
            name,
            shape,
            initializer=initializers.clone(self.initializer, index),
            regularizer=self.regularizer,
        )

    def call(self, inputs: Nest) -> tuple[tf.Tensor, tf.Tensor]:
        base.require_floating("inputs", inputs)
        x, state = inputs[:2]
        score = inputs[2] if len(inputs) == 3 else None
        state = tf.cast(self.step(self.project(x), state, score), self.compute_dtype)
        return state, state

    def project(self, x: tf.Tensor) -> tf.Tensor:
        """Projects the inputs of any number of steps at once.

        Args:
          x: `[..., dim]`.

        Returns:
          `[..., 3 * units]`.
        """
        dim = self.gate_kernel.shape[0] - self.units
        kernel = tf.concat([self.gate_kernel[:dim], self.candidate_kernel[:dim]], 1)
        bias = tf.concat([self.gate_bias, self.candidate_bias], 0)
        projected = base.matmul(self._cast(x), self._cast(kernel))
        return tf.nn.bias_add(projected, self._cast(bias))

    def _cast(self, tensor: tf.Tensor) -> tf.Tensor:
        """Casts to the compute type, which Keras does only in `call`."""
        return tf.cast(tensor, self.compute_dtype)

    def step(
        self, projected: tf.Tensor, state: tf.Tensor, score: tf.Tensor | None
    ) -> tf.Tensor:
        """Returns the new state in the type of `state`.

        Args:
          projected: One step of the result of `project`, `[batch, 3 * units]`.
          state: `[batch, units]`; may be more precise than the compute type.
          score: `[batch, 1]`, or None for a plain step.
        """
        units = self.units
        dim = self.gate_kernel.shape[0] - units
        h = self._cast(state)
        gates = projected[:, : 2 * units] + h @ self._cast(self.gate_kernel[dim:])
        reset, update = tf.split(tf.sigmoid(gates), 2, axis=-1)  # [batch, units] each
        candidate = (reset * h) @ self._cast(self.candidate_kernel[dim:])
        candidate = self.activation(projected[:, 2 * units :] + candidate)
        candidate = tf.cast(candidate, state.dtype)
        share = tf.cast(update, state.dtype)
        if score is not None:
            score = tf.cast(score, state.dtype)
            share = score if self.att_type == "AGRU" else score * share
        return (1.0 - share) * state + share * candidate

    def compute_output_shape(self, input_shape: Shapes) -> Shapes:
        shape = tf.TensorShape(input_shape[1])
        return shape, shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "units": self.units,
            "att_type": self.att_type,
            "activation": activations.serialize(self.activation),
            "initializer": initializers.serialize(self.initializer),
            "regularizer": tf_keras.regularizers.serialize(self.regularizer),
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        score = sizes.batch, 1
        return cls(sizes.dim, "AUGRU"), [sizes.feature, sizes.feature, score]


def check_type(att_type: str) -> str:
    """Returns the type in upper case; `ValueError` if it is unknown."""
    if not isinstance(att_type, str) or att_type.upper() not in _TYPES:
        raise ValueError(
            f"`att_type` must be one of {', '.join(_TYPES)}. "
            f"Received: att_type={att_type!r}."
        )
    return att_type.upper()
