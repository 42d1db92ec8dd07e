"""Sub-network routing with gates that can close."""

import math
from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import initializers
from monolith_tf.layers.parts import input_shapes
from monolith_tf.layers.parts import modes
from monolith_tf.layers.parts.straight_through import straight_through
from monolith_tf.types import Identifier
from monolith_tf.types import Nest
from monolith_tf.types import Shapes
from monolith_tf.types import Training

_TYPES = ("trans", "aver")


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class SNR(base.Layer):
    """Connects every input sub-network to every output one by a separate gate.

        y_j = sum_i z_ij * (x_i @ M_ij)               # M_ij is learned, or the identity
        s   = sigmoid((log(u) - log(1 - u) + log_alpha) / beta)    # training, u uniform
        s   = sigmoid(log_alpha)                                   # otherwise
        z   = clip(s * (zeta - gamma) + gamma, 0, 1)
        loss = l0_weight * sum sigmoid(log_alpha - beta * log(-gamma / zeta))

    A gate is drawn once per call for the whole batch, and only in training. The loss,
    added in every call, is the expected number of open gates, so a greater weight
    closes more of them.

    Source: Ma et al., "SNR: Sub-Network Routing for Flexible Parameter Sharing in
    Multi-Task Learning", AAAI 2019; the gates: Louizos et al., "Learning Sparse Neural
    Networks through L0 Regularization", ICLR 2018 (arXiv:1712.01312).

    Args:
      num_out_subnet: Number of outputs, at least 1.
      out_subnet_dim: Their width, at least 1; for "aver" that of the inputs.
      snr_type: "trans" learns the `M_ij`; with "aver" they are the identity.
      zeta: Upper end of the stretched gate, above 1.
      gamma: Lower end of the stretched gate, below 0.
      beta: Temperature of the drawn gate, above 0.
      use_ste: Lets the gradient through the clip unchanged.
      mode: "train", or "eval", "predict" or "infer", which switch the draws off.
      initializer: Initializer of each `M_ij`; None is "glorot_uniform".
      regularizer: Penalty on the `M_ij`.
      l0_weight: Factor of the loss, not negative.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: list of tensors `[batch, dim]`, or one.
    Output shape: list of `num_out_subnet` tensors `[batch, out_subnet_dim]`.

    Raises:
      ValueError: If an argument is out of range or the inputs' widths differ.

    Example:
      >>> outputs = SNR(num_out_subnet=3, out_subnet_dim=5)([tf.ones([8, 4])] * 2)
      >>> [output.shape for output in outputs]
      [TensorShape([8, 5]), TensorShape([8, 5]), TensorShape([8, 5])]
    """

    def __init__(
        self,
        num_out_subnet: int,
        out_subnet_dim: int,
        snr_type: str = "trans",
        zeta: float = 1.1,
        gamma: float = -0.1,
        beta: float = 0.5,
        use_ste: bool = False,
        mode: str = "train",
        initializer: Identifier = "glorot_uniform",
        regularizer: Identifier = None,
        l0_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        base.require_positive("num_out_subnet", num_out_subnet)
        base.require_positive("out_subnet_dim", out_subnet_dim)
        if snr_type not in _TYPES:
            raise ValueError(
                f"`snr_type` must be one of {', '.join(_TYPES)}. "
                f"Received: snr_type={snr_type!r}."
            )
        if not gamma < 0.0 < 1.0 < zeta:
            raise ValueError(
                "`gamma` must be below 0 and `zeta` above 1. "
                f"Received: gamma={gamma}, zeta={zeta}."
            )
        if beta <= 0.0:
            raise ValueError(f"`beta` must be above 0. Received: beta={beta}.")
        if l0_weight < 0.0:
            raise ValueError(
                f"`l0_weight` must not be negative. Received: l0_weight={l0_weight}."
            )
        self.num_out_subnet = int(num_out_subnet)
        self.out_subnet_dim = int(out_subnet_dim)
        self.snr_type = snr_type
        self.zeta = zeta
        self.gamma = gamma
        self.beta = beta
        self.use_ste = use_ste
        self.mode = modes.check_mode(mode)
        self.initializer = initializers.get(initializer)
        self.regularizer = tf_keras.regularizers.get(regularizer)
        self.l0_weight = l0_weight

    def build(self, input_shape: Shapes) -> None:
        shapes = input_shapes.as_list(input_shape)
        dim = base.static_width("inputs", shapes[0])
        if any(shape.rank != 2 or shape[1] != dim for shape in shapes):
            raise ValueError(
                "`inputs` must be tensors [batch, dim] of the same width. "
                f"Received: shapes={[*map(str, shapes)]}."
            )
        if self.snr_type == "aver" and dim != self.out_subnet_dim:
            raise ValueError(
                "`out_subnet_dim` must be the width of the inputs if `snr_type` is "
                f"'aver'. Received: out_subnet_dim={self.out_subnet_dim}, width={dim}."
            )
        self.num_in_subnet = len(shapes)
        routes = self.num_in_subnet * self.num_out_subnet
        self.log_alpha = self.add_weight(
            "log_alpha", [routes, 1], initializer="zeros", experimental_autocast=False
        )
        if self.snr_type == "trans":
            self.weight = self.add_weight(
                "weight",
                [routes, dim * self.out_subnet_dim],
                initializer=base.fixed(self._start_of_weight(routes, dim)),
                regularizer=self.regularizer,
                experimental_autocast=False,
            )
        super().build(input_shape)

    def _start_of_weight(self, routes: int, dim: int) -> tf.Tensor:
        """Returns an initial value for each route, scaled to the route's shape."""
        shape, dtype = [dim, self.out_subnet_dim], tf.as_dtype(self.variable_dtype)
        starts = [
            initializers.clone(self.initializer, r)(shape, dtype=dtype)
            for r in range(routes)
        ]
        return tf.reshape(tf.stack(starts), [routes, -1])

    def call(self, inputs: Nest, training: Training = None) -> list[tf.Tensor]:
        base.require_floating("inputs", inputs)
        inputs = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        gates = self.gates(modes.is_training(training, self.mode))
        gates = tf.reshape(gates, [self.num_in_subnet, self.num_out_subnet])
        self._add_l0_loss()
        if self.snr_type == "aver":
            gates = tf.cast(gates, self.compute_dtype)
            stacked = tf.stack(inputs, axis=-1)  # [batch, dim, inputs]
            return tf.unstack(base.matmul(stacked, gates), axis=-1)
        joined = tf.concat(inputs, axis=-1)  # [batch, inputs * dim]
        kernel = tf.cast(self._kernel(gates), self.compute_dtype)
        return tf.split(joined @ kernel, self.num_out_subnet, axis=-1)

    def gates(self, training: Training = False) -> tf.Tensor:
        """Returns the gates `z`, `[inputs * outputs, 1]`, row `i * outputs + j`.

        Args:
          training: Whether to draw them, as in training.
        """
        log_alpha = tf.convert_to_tensor(self.log_alpha)

        def drawn() -> tf.Tensor:
            u = base.clip_uniform(self._uniform(log_alpha.shape))
            noise = tf.cast(tf.math.log(u) - tf.math.log(1.0 - u), log_alpha.dtype)
            return tf.sigmoid((noise + log_alpha) / self.beta)

        s = modes.choose(training, drawn, lambda: tf.sigmoid(log_alpha))
        stretched = s * (self.zeta - self.gamma) + self.gamma
        clipped = tf.clip_by_value(stretched, 0.0, 1.0)
        if not self.use_ste:
            return clipped
        return straight_through(clipped, stretched)

    def _kernel(self, gates: tf.Tensor) -> tf.Tensor:
        """Returns all gated `M_ij` as `[inputs * dim, outputs * out_subnet_dim]`."""
        rows, columns = self.num_in_subnet, self.num_out_subnet
        width = self.out_subnet_dim
        weight = tf.reshape(self.weight, [rows, columns, -1, width])
        weight *= gates[:, :, tf.newaxis, tf.newaxis]
        weight = tf.transpose(weight, [0, 2, 1, 3])  # [inputs, dim, outputs, width]
        return tf.reshape(weight, [-1, columns * width])

    def _add_l0_loss(self) -> None:
        """Adds the expected number of open gates."""
        shift = self.beta * math.log(-self.gamma / self.zeta)
        is_open = tf.sigmoid(tf.convert_to_tensor(self.log_alpha) - shift)
        self.add_loss(self.l0_weight * tf.reduce_sum(is_open))

    def active_routes(self) -> tf.Tensor:
        """Returns which gates are open outside of training, `[inputs, outputs]`, bool.

        Closed routes can be left out of a served model.
        """
        shape = [self.num_in_subnet, self.num_out_subnet]
        return tf.reshape(self.gates() > 0.0, shape)

    def compute_output_shape(self, input_shape: Shapes) -> list[tf.TensorShape]:
        batch = input_shapes.as_list(input_shape)[0][:1]
        return [batch.concatenate(self.out_subnet_dim)] * self.num_out_subnet

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "num_out_subnet": self.num_out_subnet,
            "out_subnet_dim": self.out_subnet_dim,
            "snr_type": self.snr_type,
            "zeta": self.zeta,
            "gamma": self.gamma,
            "beta": self.beta,
            "use_ste": self.use_ste,
            "mode": self.mode,
            "initializer": initializers.serialize(self.initializer),
            "regularizer": tf_keras.regularizers.serialize(self.regularizer),
            "l0_weight": self.l0_weight,
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        return cls(2, 3), sizes.separate
