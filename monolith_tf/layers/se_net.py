"""Squeeze-and-excitation gates over features."""

from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.layers import functional
from monolith_tf.layers import mlp
from monolith_tf.layers.functional import forms
from monolith_tf.layers.functional import squeeze_excitation
from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import initializers
from monolith_tf.layers.parts import input_shapes
from monolith_tf.layers.parts import merge


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class SeNet(base.Layer):
    """Scales every feature by a gate computed from the means of all features.

        squeezed[:, i] = mean(x[:, i], axis=-1)    # [batch, features]
        gates = cmp_tower(squeezed)                # relu, then sigmoid
        y[:, i] = gates[:, i] * x[:, i]

    Without a tower the means themselves are the gates.

    Source: Hu et al., "Squeeze-and-excitation networks", CVPR 2018 (arXiv:1709.01507);
    over features, Huang et al., "FiBiNET", RecSys 2019 (arXiv:1905.09433).

    Args:
      num_feature: Number of features, at least 1.
      cmp_dim: Width of the tower's hidden layer, at least 1; None for no tower. The
        tower is an `MLP` with weight normalization.
      initializer: Initializer of the tower's kernels; None is "glorot_uniform". Biases
        start at zero.
      kernel_regularizer: Penalty on the tower's kernels.
      bias_regularizer: Penalty on the tower's biases.
      on_gpu: True selects the fused form, like `fused=True`.
      out_type: "concat", "stack" or None; see the output shape.
      keep_list: Returns a single tensor as a list of one.
      fused: True uses the fused form, which XLA compiles unless the input is too small
        to benefit: once per batch size, and batches are padded to few sizes. False uses
        the plain form; "auto" is True where XLA is faster. Results agree up to
        rounding. The fused form has only first-order gradients; exports use the plain
        form.
      regularizer: Alias of `kernel_regularizer`.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: `[batch, num_feature, dim]` or a list of `num_feature` features
    `[batch, dim_i]`, with widths known at build time.
    Output shape: "concat" `[batch, sum of dims]`, "stack" `[batch, num_feature, dim]`
    for features of one width, None a list of `[batch, dim_i]`.

    Raises:
      ValueError: If a width is below 1, an argument is unknown or contradicts another,
        or the input has another number of features.

    Example:
      >>> SeNet(num_feature=26, cmp_dim=4, out_type="stack")(tf.ones([8, 26, 16])).shape
      TensorShape([8, 26, 16])
    """

    def __init__(
        self,
        num_feature: int,
        cmp_dim: int | None,
        initializer: Any = None,
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        on_gpu: bool = False,
        out_type: str | None = merge.MergeType.CONCAT,
        keep_list: bool = False,
        fused: bool | str = "auto",
        regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        base.require_positive("num_feature", num_feature)
        if cmp_dim is not None:
            base.require_positive("cmp_dim", cmp_dim)
        if kernel_regularizer is not None and regularizer is not None:
            raise ValueError(
                "`regularizer` is an alias of `kernel_regularizer`. Received both. "
                "Remove one."
            )
        if on_gpu and fused is False:
            raise ValueError(
                "`on_gpu=True` selects the fused form. Received: fused=False. "
                "Remove one."
            )
        self.num_feature = num_feature
        self.cmp_dim = cmp_dim
        self.initializer = initializers.get(initializer)
        self.kernel_regularizer = tf_keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = tf_keras.regularizers.get(bias_regularizer)
        self.on_gpu = on_gpu
        self.out_type = merge.check_merge_type("out_type", out_type)
        self.keep_list = keep_list
        self.fused = forms.check(fused)
        self.regularizer = tf_keras.regularizers.get(regularizer)
        self.cmp_tower: Any = None if cmp_dim is None else self._make_tower(cmp_dim)

    def _make_tower(self, cmp_dim: int) -> mlp.MLP:
        return mlp.MLP(
            [cmp_dim, self.num_feature],
            activations=["relu", "sigmoid"],
            initializers=initializers.clone(self.initializer),
            kernel_regularizer=self.kernel_regularizer or self.regularizer,
            bias_regularizer=self.bias_regularizer,
            name="cmp_tower",
            dtype=self.dtype_policy,
        )

    def build(self, input_shape: Any) -> None:
        self._check_shapes(input_shape)
        self._build_child(self.cmp_tower, [None, self.num_feature])
        super().build(input_shape)

    def _check_shapes(self, input_shape: Any) -> None:
        """Raises `ValueError` unless there are `num_feature` matching features."""
        one = input_shapes.is_shape(input_shape)
        parts = input_shapes.as_list(input_shape)
        if any(part.rank != (3 if one else 2) for part in parts):
            raise ValueError(
                "`inputs` must be [batch, features, dim] or a list of [batch, dim]. "
                f"Received: inputs.shape={input_shape}."
            )
        found = base.static_width("inputs", parts[0], axis=1) if one else len(parts)
        if found != self.num_feature:
            raise ValueError(
                f"`inputs` must hold num_feature={self.num_feature} features. "
                f"Received: features={found}."
            )
        widths = [base.static_width("inputs", part) for part in parts]
        if self.out_type == merge.MergeType.STACK and len(set(widths)) > 1:
            raise ValueError(
                "`out_type='stack'` needs features of the same width. "
                f"Received: widths={widths}. Use 'concat' or None."
            )

    def call(self, inputs: Any) -> Any:
        base.require_floating("inputs", inputs)
        if self.cmp_tower is None:
            gates = squeeze_excitation.squeeze(inputs)
            outputs = squeeze_excitation.scale(inputs, gates)
        else:
            fused = True if self.on_gpu else self.fused
            outputs = functional.senet(inputs, *self._tower_weights(), fused=fused)
        return merge.merge_tensor_list(outputs, self.out_type, keep_list=self.keep_list)

    def _tower_weights(self) -> list[tf.Tensor]:
        """Returns the kernel and the bias of both layers of the tower."""
        first, second = self.cmp_tower.get_layer(0), self.cmp_tower.get_layer(2)
        return [
            first.effective_kernel(),
            first.bias,
            second.effective_kernel(),
            second.bias,
        ]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "num_feature": self.num_feature,
            "cmp_dim": self.cmp_dim,
            "initializer": initializers.serialize(self.initializer),
            "kernel_regularizer": tf_keras.regularizers.serialize(
                self.kernel_regularizer
            ),
            "bias_regularizer": tf_keras.regularizers.serialize(self.bias_regularizer),
            "on_gpu": self.on_gpu,
            "out_type": self.out_type,
            "keep_list": self.keep_list,
            "fused": self.fused,
            "regularizer": tf_keras.regularizers.serialize(self.regularizer),
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        return cls(sizes.features, 2), sizes.stack
