"""Multi-gate mixture of experts."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.layers import mlp
from monolith_tf.layers.mlp import MLP
from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import experts
from monolith_tf.layers.parts import initializers
from monolith_tf.layers.parts import input_shapes
from monolith_tf.layers.parts import modes
from monolith_tf.layers.parts import params
from monolith_tf.types import Identifier
from monolith_tf.types import Nest
from monolith_tf.types import Shapes
from monolith_tf.types import Training

_GATE_TYPES = ("softmax", "topk", "noise_topk")
_EXPERT_ARGUMENTS = (
    "kernel_regularizer",
    "use_weight_norm",
    "use_learnable_weight_norm",
    "use_bias",
    "bias_regularizer",
    "enable_batch_normalization",
    "batch_normalization_momentum",
    "batch_normalization_renorm",
    "batch_normalization_renorm_clipping",
    "batch_normalization_renorm_momentum",
)


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class MMoE(base.Layer):
    """Experts shared by all tasks, mixed by a separate gate for each task.

        p[t] = softmax_e(gate_input @ gate_weight)            # by task t
        p[t] = where(p[t] >= k-th largest, p[t], 0) / sum     # with a top-k gate
        y[t] = sum_e p[t, e] * expert_e(expert_input)

    A noisy top-k gate adds `normal() * softplus(gate_input @ gate_noise)` to its
    logits, in training only. Experts that tie with the k-th are kept, so all are active
    at the start, when the gates are zero. A top-k gate adds a loss that grows when
    experts are used unevenly: by task, the squared coefficient of variation of the
    gates' sums over the batch.

    Source: Ma et al., "Modeling task relationships in multi-task learning with
    multi-gate mixture-of-experts", KDD 2018; Shazeer et al., "Outrageously large neural
    networks", ICLR 2017, equations 3 to 6 (arXiv:1701.06538).

    Args:
      num_tasks: Number of outputs, at least 1.
      expert_output_dims: Widths of an expert's layers; or one such list per expert, all
        with the same last width.
      expert_activations: `activations` of `MLP`, for all experts; or a list with one
        entry per expert.
      expert_initializers: `initializers` of `MLP`, for all experts; or a list with one
        entry per expert.
      gate_type: "softmax", "topk" or "noise_topk".
      topk: Experts that a top-k gate keeps, from 1 to the number of experts; `top_k` is
        an alias.
      num_experts: Number of experts; None infers it from the first argument above that
        has one entry per expert.
      kernel_regularizer: Like the arguments below, passed to every expert; see `MLP`.
      use_weight_norm: See `MLP`.
      use_learnable_weight_norm: See `MLP`.
      use_bias: See `MLP`.
      bias_regularizer: See `MLP`.
      enable_batch_normalization: See `MLP`.
      batch_normalization_momentum: See `MLP`.
      batch_normalization_renorm: See `MLP`.
      batch_normalization_renorm_clipping: See `MLP`.
      batch_normalization_renorm_momentum: See `MLP`.
      importance_loss_weight: Factor of the loss of a top-k gate.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: `[batch, dim]`, or a list of it and the gates' input
      `[batch, gate_dim]`.
    Output shape: list of `num_tasks` tensors `[batch, expert_output_dims[-1]]`.

    Raises:
      ValueError: If an argument is out of range or lengths do not match.

    Example:
      >>> outputs = MMoE(2, [16, 8], num_experts=4)(tf.ones([32, 10]))
      >>> [output.shape for output in outputs]
      [TensorShape([32, 8]), TensorShape([32, 8])]
    """

    @classmethod
    def params(cls) -> params.LayerParams:
        """See base class; `top_k` is an alias of `topk`."""
        return params.LayerParams(cls, aliases={"top_k": "topk"})

    def __init__(
        self,
        num_tasks: int,
        expert_output_dims: Sequence[int] | Sequence[Sequence[int]],
        expert_activations: Identifier = "relu",
        expert_initializers: Identifier = "glorot_uniform",
        gate_type: str = "softmax",
        topk: int = 1,
        num_experts: int | None = None,
        kernel_regularizer: Identifier = None,
        use_weight_norm: bool = True,
        use_learnable_weight_norm: bool = True,
        use_bias: bool = True,
        bias_regularizer: Identifier = None,
        enable_batch_normalization: bool = False,
        batch_normalization_momentum: float = 0.99,
        batch_normalization_renorm: bool = False,
        batch_normalization_renorm_clipping: Mapping[str, float] | None = None,
        batch_normalization_renorm_momentum: float = 0.99,
        importance_loss_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        topk = _one_topk(topk, kwargs.pop("top_k", None))
        super().__init__(**kwargs)
        base.require_positive("num_tasks", num_tasks)
        if gate_type not in _GATE_TYPES:
            raise ValueError(
                f"`gate_type` must be one of {', '.join(_GATE_TYPES)}. "
                f"Received: gate_type={gate_type!r}."
            )
        self.num_tasks = num_tasks
        self.gate_type = gate_type
        self.topk = topk
        self.importance_loss_weight = importance_loss_weight
        self.num_experts = experts.count(
            num_experts, expert_output_dims, expert_activations, expert_initializers
        )
        if not 1 <= topk <= self.num_experts:
            raise ValueError(
                "`topk` must be from 1 to the number of experts. "
                f"Received: topk={topk}, num_experts={self.num_experts}."
            )
        self.expert_output_dims = experts.widths(expert_output_dims, self.num_experts)
        given = experts.per_expert(
            "expert_initializers", expert_initializers, self.num_experts
        )
        self.expert_initializers = [
            mlp.per_layer_initializers(one, len(dims))
            for one, dims in zip(given, self.expert_output_dims, strict=True)
        ]
        activations = experts.per_expert(
            "expert_activations", expert_activations, self.num_experts
        )
        self.experts = [
            MLP(
                dims,
                activations=activations[i],
                initializers=self._initializers_of(i),
                kernel_regularizer=kernel_regularizer,
                use_weight_norm=use_weight_norm,
                use_learnable_weight_norm=use_learnable_weight_norm,
                use_bias=use_bias,
                bias_regularizer=bias_regularizer,
                enable_batch_normalization=enable_batch_normalization,
                batch_normalization_momentum=batch_normalization_momentum,
                batch_normalization_renorm=batch_normalization_renorm,
                batch_normalization_renorm_clipping=batch_normalization_renorm_clipping,
                batch_normalization_renorm_momentum=batch_normalization_renorm_momentum,
                name=f"expert_{i}",
                dtype=self.dtype_policy,
            )
            for i, dims in enumerate(self.expert_output_dims)
        ]

    def _initializers_of(self, expert: int) -> list[Identifier]:
        """Returns an expert's initializers, with seeds that no other expert has."""
        before = sum(len(dims) for dims in self.expert_output_dims[:expert])
        return [
            initializers.clone(one, before) for one in self.expert_initializers[expert]
        ]

    def build(self, input_shape: Shapes) -> None:
        expert_shape, gate_shape = _two_shapes(input_shape)
        for expert in self.experts:
            self._build_child(expert, expert_shape)
        shape = [
            base.static_width("gate_input", gate_shape),
            self.num_tasks * self.num_experts,
        ]
        self.gate_weight = self.add_weight(
            "gate_weight", shape, initializer="zeros", experimental_autocast=False
        )
        if self.gate_type == "noise_topk":
            self.gate_noise = self.add_weight(
                "gate_noise",
                shape,
                initializer="glorot_normal",
                experimental_autocast=False,
            )
        super().build(input_shape)

    def call(self, inputs: Nest, training: Training = None) -> list[tf.Tensor]:
        base.require_floating("inputs", inputs)
        expert_input, _ = _two(inputs)
        gates = self.gates(inputs, training)  # [batch, tasks, experts]
        if self.gate_type != "softmax":
            self.add_loss(self.importance_loss_weight * _imbalance(gates))
        outputs = [expert(expert_input, training=training) for expert in self.experts]
        stacked = tf.stack(outputs, axis=1)  # [batch, experts, dim]
        mixed = tf.cast(gates, stacked.dtype) @ stacked  # [batch, tasks, dim]
        return tf.unstack(mixed, axis=1)

    def gates(self, inputs: Nest, training: Training = None) -> tf.Tensor:
        """Returns the weight of every expert for every task.

        Args:
          inputs: The layer's inputs.
          training: As in the layer's call; a noisy gate draws if it is true.

        Returns:
          `[batch, tasks, experts]` in the type of the weights; each row sums to 1.
        """
        gate_input = tf.cast(_two(inputs)[1], self.variable_dtype)
        logits = gate_input @ self.gate_weight  # [batch, tasks * experts]
        if self.gate_type == "noise_topk":
            clean = logits
            logits = modes.choose(
                modes.is_training(training),
                lambda: clean + self._noise(gate_input),
                lambda: tf.identity(clean),
            )
        shape = [tf.shape(logits)[0], self.num_tasks, self.num_experts]
        gates = tf.nn.softmax(tf.reshape(logits, shape))
        return gates if self.gate_type == "softmax" else self._keep_largest(gates)

    def _noise(self, gate_input: tf.Tensor) -> tf.Tensor:
        scale = tf.nn.softplus(gate_input @ self.gate_noise)
        return tf.cast(self._normal(tf.shape(scale)), scale.dtype) * scale

    def _keep_largest(self, gates: tf.Tensor) -> tf.Tensor:
        """Drops all gates below the k-th largest and makes the others sum to 1."""
        smallest = tf.math.top_k(gates, self.topk).values[..., -1:]
        gates = tf.where(gates >= smallest, gates, tf.zeros_like(gates))
        total = tf.reduce_sum(gates, axis=-1, keepdims=True)
        # A single gate is always 1; without the stop its logit would never learn.
        return gates / (tf.stop_gradient(total) if self.topk == 1 else total)

    def compute_output_shape(self, input_shape: Shapes) -> list[tf.TensorShape]:
        batch = _two_shapes(input_shape)[0][0]
        width = self.expert_output_dims[0][-1]
        return [tf.TensorShape([batch, width]) for _ in range(self.num_tasks)]

    def get_config(self) -> dict[str, Any]:
        configs = [expert.get_config() for expert in self.experts]
        handed_on = {key: configs[0][key] for key in _EXPERT_ARGUMENTS}
        return (
            super().get_config()
            | handed_on
            | {
                "num_tasks": self.num_tasks,
                "expert_output_dims": [list(dims) for dims in self.expert_output_dims],
                "expert_activations": [one["activations"] for one in configs],
                "expert_initializers": [
                    [initializers.serialize(one) for one in per_layer]
                    for per_layer in self.expert_initializers
                ],
                "gate_type": self.gate_type,
                "topk": self.topk,
                "num_experts": self.num_experts,
                "importance_loss_weight": self.importance_loss_weight,
            }
        )

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        layer = cls(2, [2], num_experts=2, gate_type="noise_topk", topk=1)
        return layer, sizes.flat


def _imbalance(gates: tf.Tensor) -> tf.Tensor:
    """Returns the sum over tasks of variance over squared mean of the experts' use."""
    use = tf.reduce_sum(gates, axis=0)  # [tasks, experts]
    mean, variance = tf.nn.moments(use, axes=[1])  # [tasks]
    return tf.reduce_sum(tf.math.divide_no_nan(variance, tf.square(mean)))


def _two(inputs: Nest) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the experts' and the gates' input."""
    if isinstance(inputs, (list, tuple)):
        return inputs[0], inputs[1]
    return inputs, inputs


def _two_shapes(input_shape: Shapes) -> tuple[tf.TensorShape, tf.TensorShape]:
    """Returns the shapes of the experts' and the gates' input."""
    shapes = input_shapes.as_list(input_shape)
    if len(shapes) == 1:
        shapes *= 2
    if len(shapes) != 2:
        raise ValueError(
            "`inputs` must be one tensor, or the experts' and the gates' input. "
            f"Received: {len(shapes)} tensors."
        )
    return shapes[0], shapes[1]


def _one_topk(topk: int, top_k: int | None) -> int:
    """Returns the value of an argument that has two names."""
    if top_k is None or top_k == topk:
        return topk
    if topk != 1:
        raise ValueError(
            "`topk` and `top_k` are the same argument. "
            f"Received: topk={topk}, top_k={top_k}. Set one of them."
        )
    return top_k
