"""A tower whose layers are scaled by gates, as in LHUC."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.layers import activations as activations_lib
from monolith_tf.layers import mlp
from monolith_tf.layers.dense import Dense
from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import initializers as initializers_lib
from monolith_tf.layers.parts import input_shapes

_SAME = "same"


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class LHUCTower(base.Layer):
    """An MLP in which gates from another input scale the output of every layer.

        x = batch_norm_in(dense_input)                       # with batch normalization
        x = activation_i(batch_norm_i(tower_i(x))) * lhuc_i(lhuc_input)   # each layer

    `lhuc_i` is an `MLP` with relu between its layers and `2 * sigmoid` at the end, so a
    gate is between 0 and 2. The last layer is gated too; as in `MLP`, it is linear
    unless `activations` is a list, and has no batch normalization.

    Source: Swietojanski et al., "Learning Hidden Unit Contributions for Unsupervised
    Acoustic Model Adaptation", IEEE/ACM TASLP 2016 (arXiv:1601.02828).

    Args:
      output_dims: Width of every layer of the tower.
      lhuc_output_dims: None for gates of one layer; a list of widths before the last
        layer of every gate; or one list per layer of the tower, each ending in that
        layer's width.
      activations: The tower's activations; see `MLP`.
      initializers: Kernel initializer, one for all layers or a list of at most one per
        layer of the tower; the gate of a layer uses that of its layer.
      kernel_regularizer: See `MLP`.
      use_weight_norm: See `MLP`.
      use_learnable_weight_norm: See `MLP`.
      use_bias: See `MLP`.
      bias_regularizer: See `MLP`.
      enable_batch_normalization: See `MLP`.
      batch_normalization_momentum: See `MLP`.
      batch_normalization_renorm: See `MLP`.
      batch_normalization_renorm_clipping: See `MLP`.
      batch_normalization_renorm_momentum: See `MLP`.
      lhuc_initializers: Like the arguments below, the gates' value of the argument
        without `lhuc_`; "same" means the tower's.
      lhuc_kernel_regularizer: See above.
      lhuc_use_weight_norm: See above.
      lhuc_use_learnable_weight_norm: See above.
      lhuc_use_bias: See above.
      lhuc_bias_regularizer: See above.
      lhuc_enable_batch_normalization: See above.
      lhuc_batch_normalization_momentum: See above.
      lhuc_batch_normalization_renorm: See above.
      lhuc_batch_normalization_renorm_clipping: See above.
      lhuc_batch_normalization_renorm_momentum: See above.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: list of `[batch, ..., dim]` and the gates' input `[batch, ...,
    lhuc_dim]`; or one tensor for both.
    Output shape: `[batch, ..., output_dims[-1]]`, with the mask of the first input.

    Raises:
      ValueError: If a width is below 1, or lengths or widths do not match.

    Example:
      >>> LHUCTower([16, 4])([tf.ones([8, 10]), tf.ones([8, 3])]).shape
      TensorShape([8, 4])
    """

    def __init__(
        self,
        output_dims: Sequence[int],
        lhuc_output_dims: Sequence[int] | Sequence[Sequence[int]] | None = None,
        activations: Any = "relu",
        initializers: Any = None,
        use_bias: bool | str = True,
        use_weight_norm: bool = True,
        use_learnable_weight_norm: bool = True,
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        enable_batch_normalization: bool = False,
        batch_normalization_momentum: float = 0.99,
        batch_normalization_renorm: bool = False,
        batch_normalization_renorm_clipping: Mapping[str, float] | None = None,
        batch_normalization_renorm_momentum: float = 0.99,
        lhuc_initializers: Any = _SAME,
        lhuc_kernel_regularizer: Any = _SAME,
        lhuc_use_weight_norm: bool | str = _SAME,
        lhuc_use_learnable_weight_norm: bool | str = _SAME,
        lhuc_use_bias: bool | str = _SAME,
        lhuc_bias_regularizer: Any = _SAME,
        lhuc_enable_batch_normalization: bool | str = _SAME,
        lhuc_batch_normalization_momentum: float | str = _SAME,
        lhuc_batch_normalization_renorm: bool | str = _SAME,
        lhuc_batch_normalization_renorm_clipping: Any = _SAME,
        lhuc_batch_normalization_renorm_momentum: float | str = _SAME,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.output_dims = mlp.check_widths("output_dims", output_dims)
        self.lhuc_output_dims = _gate_dims(lhuc_output_dims, self.output_dims)
        count = len(self.output_dims)
        self.tower_options = _options(
            count,
            initializers=initializers,
            kernel_regularizer=kernel_regularizer,
            use_weight_norm=use_weight_norm,
            use_learnable_weight_norm=use_learnable_weight_norm,
            use_bias=mlp.check_use_bias("use_bias", use_bias),
            bias_regularizer=bias_regularizer,
            enable_batch_normalization=enable_batch_normalization,
            batch_normalization_momentum=batch_normalization_momentum,
            batch_normalization_renorm=batch_normalization_renorm,
            batch_normalization_renorm_clipping=batch_normalization_renorm_clipping,
            batch_normalization_renorm_momentum=batch_normalization_renorm_momentum,
        )
        self.lhuc_options = _options(
            count,
            initializers=lhuc_initializers,
            kernel_regularizer=lhuc_kernel_regularizer,
            use_weight_norm=lhuc_use_weight_norm,
            use_learnable_weight_norm=lhuc_use_learnable_weight_norm,
            use_bias=lhuc_use_bias,
            bias_regularizer=lhuc_bias_regularizer,
            enable_batch_normalization=lhuc_enable_batch_normalization,
            batch_normalization_momentum=lhuc_batch_normalization_momentum,
            batch_normalization_renorm=lhuc_batch_normalization_renorm,
            batch_normalization_renorm_clipping=lhuc_batch_normalization_renorm_clipping,
            batch_normalization_renorm_momentum=lhuc_batch_normalization_renorm_momentum,
        )
        self.tower = [self._dense(i) for i in range(count)]
        self.batch_norms = self._batch_norms()
        self.activations = mlp.per_layer_activations(
            activations, count, count - 1, self.dtype_policy
        )
        self.gates = [self._gate(i) for i in range(count)]

    def _dense(self, index: int) -> Dense:
        options = self.tower_options
        is_hidden = index < len(self.output_dims) - 1
        is_normalized = is_hidden and options["enable_batch_normalization"]
        return Dense(
            self.output_dims[index],
            use_bias=mlp.has_bias(options["use_bias"], is_normalized),
            kernel_initializer=initializers_lib.clone(
                options["initializers"][index], index
            ),
            kernel_regularizer=options["kernel_regularizer"],
            bias_regularizer=options["bias_regularizer"],
            allow_kernel_norm=options["use_weight_norm"],
            kernel_norm_trainable=options["use_learnable_weight_norm"],
            name=f"tower_{index}",
            dtype=self.dtype_policy,
        )

    def _batch_norms(self) -> list[Any]:
        """Returns one for the input and for each layer except the last, or none."""
        options = self.tower_options
        if not options["enable_batch_normalization"]:
            return []
        last = len(self.output_dims) - 1
        return [
            mlp.make_batch_norm(
                f"batch_norm_{place}",
                self.dtype_policy,
                options["batch_normalization_momentum"],
                options["batch_normalization_renorm"],
                options["batch_normalization_renorm_clipping"],
                options["batch_normalization_renorm_momentum"],
            )
            for place in ("in", *range(last))
        ]

    def _gate(self, index: int) -> mlp.MLP:
        options = dict(self.tower_options) | dict(self.lhuc_options)
        dims = self.lhuc_output_dims[index]
        # After the kernels of the tower and of the gates before this one.
        place = len(self.output_dims) + sum(map(len, self.lhuc_output_dims[:index]))
        initializer = initializers_lib.clone(options["initializers"][index], place)
        return mlp.MLP(
            dims,
            activations=["relu"] * (len(dims) - 1) + ["sigmoid2"],
            name=f"lhuc_{index}",
            dtype=self.dtype_policy,
            **options | {"initializers": initializer},
        )

    def build(self, input_shape: Any) -> None:
        shapes = input_shapes.as_list(input_shape)
        if len(shapes) > 2:
            raise ValueError(
                "`inputs` must be one tensor, or `[dense_input, lhuc_input]`. "
                f"Received: shapes={[*map(str, shapes)]}."
            )
        width = base.static_width("dense_input", shapes[0])
        gate_width = base.static_width("lhuc_input", shapes[-1])
        widths = [width, *self.output_dims]
        # Of the input's rank, which batch normalization checks.
        dense_shapes = [shapes[0][:-1].concatenate(units) for units in widths]
        gate_shape = shapes[-1][:-1].concatenate(gate_width)
        for norm, shape in zip(self.batch_norms, dense_shapes, strict=False):
            self._build_child(norm, shape)
        for i in range(len(self.output_dims)):
            self._build_child(self.tower[i], dense_shapes[i])
            self._build_child(self.activations[i], dense_shapes[i + 1])
            self._build_child(self.gates[i], gate_shape)
        super().build(input_shape)

    def call(self, inputs: Any, training: Any = None) -> tf.Tensor:
        base.require_floating("inputs", inputs)
        several = isinstance(inputs, (list, tuple))
        x, gate_input = (inputs[0], inputs[-1]) if several else (inputs, inputs)
        norms = list(self.batch_norms)
        if norms:
            x = norms.pop(0)(x, training=training)
        for dense, activation, gate in zip(
            self.tower, self.activations, self.gates, strict=True
        ):
            x = dense(x)
            if norms:
                x = norms.pop(0)(x, training=training)
            if activation is not None:
                x = activation(x)
            x *= gate(gate_input, training=training)
        return x

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The mask of `dense_input`."""
        del inputs
        return mask[0] if isinstance(mask, (list, tuple)) else mask

    def compute_output_shape(self, input_shape: Any) -> tf.TensorShape:
        shape = input_shapes.as_list(input_shape)[0]
        return shape[:-1].concatenate(self.output_dims[-1])

    def get_config(self) -> dict[str, Any]:
        return (
            super().get_config()
            | {
                "output_dims": list(self.output_dims),
                "lhuc_output_dims": [list(dims) for dims in self.lhuc_output_dims],
                "activations": [activations_lib.serialize(a) for a in self.activations],
            }
            | _serialize(self.tower_options)
            | {f"lhuc_{name}": _SAME for name in self.tower_options}
            | {f"lhuc_{n}": v for n, v in _serialize(self.lhuc_options).items()}
        )

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        return cls([3, 2], [2]), [sizes.flat, sizes.feature]


def _gate_dims(given: Any, output_dims: Sequence[int]) -> list[list[int]]:
    """Returns the widths of the layers of every gate."""
    if given is None:
        return [[units] for units in output_dims]
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise ValueError(
            "`lhuc_output_dims` must be None, a list of widths, or a list of such "
            f"lists. Received: lhuc_output_dims={given!r}."
        )
    if not all(isinstance(dims, Sequence) for dims in given):
        return [mlp.check_widths("lhuc_output_dims", [*given, n]) for n in output_dims]
    nested = [mlp.check_widths("lhuc_output_dims", dims) for dims in given]
    if [dims[-1] for dims in nested] != list(output_dims):
        raise ValueError(
            "`lhuc_output_dims` must have one list per entry of `output_dims`, each "
            f"ending in that entry. Received: lhuc_output_dims={nested}, "
            f"output_dims={list(output_dims)}."
        )
    return nested


def _options(count: int, **given: Any) -> dict[str, Any]:
    """Drops "same", and replaces names of initializers and regularizers by objects."""
    options = {}
    for name, value in given.items():
        if isinstance(value, str) and value == _SAME:
            continue
        if name == "initializers":
            value = mlp.per_layer_initializers(value, count)
        elif name.endswith("_regularizer"):
            value = tf_keras.regularizers.get(value)
        options[name] = value
    return options


def _serialize(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options as config values."""
    config = dict(options)
    for name, value in options.items():
        if value is None:
            continue
        if name == "initializers":
            config[name] = [initializers_lib.serialize(one) for one in value]
        elif name.endswith("_regularizer"):
            config[name] = tf_keras.regularizers.serialize(value)
        elif name.endswith("_clipping"):
            config[name] = dict(value)
    return config
