"""The compressed interaction network, compiled and without its large products."""

import dataclasses
import json
from collections.abc import Callable
from collections.abc import Sequence

import tensorflow as tf

from monolith_tf.layers import activations as activations_lib
from monolith_tf.layers.functional import compiled
from monolith_tf.layers.functional import pair_products
from monolith_tf.layers.functional.compiled import Tensors

# The size of one block's products. Neither smaller nor larger blocks are faster, and a
# batch is padded to whole blocks.
_BLOCK_BYTES = 16 * 2**20
_MAX_ROWS = 256
# These depend on more than one number, or have weights.
_NOT_ELEMENTWISE = (None, "prelu", "softmax")

Activation = Callable[[tf.Tensor], tf.Tensor] | None


def cin(
    x0: tf.Tensor,
    kernels: Sequence[tf.Tensor],
    biases: Sequence[tf.Tensor],
    activations: Sequence[Activation],
) -> tf.Tensor:
    """Computes `functional.cin`, as one function if all activations are elementwise."""
    keys = [_key(activation) for activation in activations[: len(kernels) - 1]]
    if all(keys):
        units = tuple(int(bias.shape[0]) for bias in biases)
        network = _Network(x0.shape[1], x0.shape[2], units, tuple(keys))
        return compiled.call(network, [x0], [*kernels, *biases])[0]
    x, pooled = x0, []
    for kernel, bias, activation in zip(kernels, biases, activations, strict=False):
        x = cin_layer(x, x0, kernel, bias, activation)
        pooled.append(tf.reduce_sum(x, axis=2))
    pooled.append(cin_pooled_linear(x, x0, kernels[-1], biases[-1]))
    return tf.concat(pooled, axis=-1)


def cin_layer(
    x: tf.Tensor,
    x0: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor,
    activation: Activation = None,
) -> tf.Tensor:
    """Computes `functional.cin_layer`."""
    batched = [x0] if x is x0 else [x, x0]
    layer = _Layer(x.shape[1], x0.shape[1], x.shape[2])
    y = compiled.call(layer, batched, [kernel, bias])[0]
    if activation is None:
        return y
    return tf.transpose(activation(tf.transpose(y, [0, 2, 1])), [0, 2, 1])


def cin_pooled_linear(
    x: tf.Tensor, x0: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor
) -> tf.Tensor:
    """Computes `functional.cin_pooled_linear`."""
    return compiled.call(_PooledLinear(), [x, x0], [kernel, bias])[0]


def _key(activation: Activation) -> str:
    """Returns the config of an elementwise activation; "" for any other."""
    if activation is None:
        return json.dumps({"name": "linear"})
    activation = activations_lib.get(activation)
    if activations_lib.canonical_name(activation) in _NOT_ELEMENTWISE:
        return ""
    return json.dumps(activations_lib.serialize(activation), sort_keys=True)


def _block_rows(products: int) -> int:
    """Returns the number of batch rows in a block, with `products` per row."""
    rows = _BLOCK_BYTES // (4 * products)
    return 1 << (min(max(rows, 1), _MAX_ROWS).bit_length() - 1)


@dataclasses.dataclass(frozen=True)
class _Network:
    """All layers. Between them, maps stay in blocks, `[blocks, maps, rows * dim]`."""

    fields: int
    dim: int
    units: tuple[int, ...]
    activations: tuple[str, ...]

    @property
    def block_rows(self) -> int:
        maps = max((self.fields, *self.units[:-2]))
        return _block_rows(maps * self.fields * self.dim)

    def forward(self, batched: Tensors, weights: Tensors) -> tuple[Tensors, Tensors]:
        x0 = batched[0]
        kernels, biases = self._split(weights)
        rows = tf.minimum(tf.shape(x0)[0], self.block_rows)
        x = first = _to_blocks(x0, rows)
        saved, pooled = [], []
        for i, activation in enumerate(self._functions()):
            y = pair_products.contract(kernels[i], x, first if i else None)
            saved.append(y + biases[i][:, tf.newaxis])
            x = activation(saved[-1])
            pooled.append(self._sum(x, i, rows))
        x = _from_blocks(x, rows, self.dim)
        pooled.append(_pooled_linear(x, x0, kernels[-1], biases[-1]))
        return [tf.concat(pooled, axis=-1)], saved

    def backward(
        self, batched: Tensors, weights: Tensors, saved: Tensors, upstream: Tensors
    ) -> tuple[Tensors, Tensors]:
        x0 = batched[0]
        kernels, _ = self._split(weights)
        rows = tf.minimum(tf.shape(x0)[0], self.block_rows)
        first = _to_blocks(x0, rows)
        functions = self._functions()
        # Only the inputs of the activations are saved: their gradients need these
        # anyway, and the maps are cheap to compute again.
        maps = [f(y) for f, y in zip(functions, saved, strict=True)]
        of_pooled = tf.split(upstream[0], self.units, axis=1)
        x = _from_blocks(maps[-1], rows, self.dim) if maps else x0
        dx, dx0, *of_last = _pooled_linear_gradients(x, x0, kernels[-1], of_pooled[-1])
        if not maps:
            return [dx + dx0], of_last
        dx = _to_blocks(dx, rows)
        of_kernels, of_biases = [of_last[0]], [of_last[1]]
        for i in reversed(range(len(maps))):
            dx += self._spread(of_pooled[i], i, rows)
            dy = _activation_gradient(functions[i], saved[i], dx)
            inputs = (maps[i - 1], first) if i else (first,)
            *of_inputs, of_kernel = pair_products.contract_gradients(
                kernels[i], dy, *inputs
            )
            dx = of_inputs[0]
            dx0 += _from_blocks(of_inputs[-1], rows, self.dim)
            of_kernels.append(of_kernel)
            of_biases.append(tf.reduce_sum(dy, axis=[0, 2]))
        return [dx0], of_kernels[::-1] + of_biases[::-1]

    def _split(self, weights: Tensors) -> tuple[Tensors, Tensors]:
        return weights[: len(self.units)], weights[len(self.units) :]

    def _functions(self) -> list[Callable[[tf.Tensor], tf.Tensor]]:
        # Not `__call__`, which would cast to the type of the policy.
        return [activations_lib.get(key).call for key in self.activations]

    def _sum(self, x: tf.Tensor, layer: int, rows: tf.Tensor) -> tf.Tensor:
        """Sums the maps of a layer over `dim`, `[batch, units]`."""
        units = self.units[layer]
        sums = tf.reduce_sum(tf.reshape(x, [-1, units, rows, self.dim]), axis=3)
        return tf.reshape(tf.transpose(sums, [0, 2, 1]), [-1, units])

    def _spread(self, y: tf.Tensor, layer: int, rows: tf.Tensor) -> tf.Tensor:
        """Repeats `[batch, units]` over `dim`, the gradient of `_sum`."""
        units = self.units[layer]
        by_row = tf.transpose(tf.reshape(y, [-1, rows, units]), [0, 2, 1])
        spread = tf.repeat(by_row[..., tf.newaxis], self.dim, axis=3)
        return tf.reshape(spread, [-1, units, rows * self.dim])


@dataclasses.dataclass(frozen=True)
class _Layer:
    """One layer without its activation; of one tensor, `x0`, if it is the first."""

    maps: int
    fields: int
    dim: int

    @property
    def block_rows(self) -> int:
        return _block_rows(self.maps * self.fields * self.dim)

    def forward(self, batched: Tensors, weights: Tensors) -> tuple[Tensors, Tensors]:
        kernel, bias = weights
        rows = tf.minimum(tf.shape(batched[0])[0], self.block_rows)
        blocks = [_to_blocks(x, rows) for x in batched]
        y = pair_products.contract(kernel, *blocks) + bias[:, tf.newaxis]
        return [_from_blocks(y, rows, self.dim)], []

    def backward(
        self, batched: Tensors, weights: Tensors, saved: Tensors, upstream: Tensors
    ) -> tuple[Tensors, Tensors]:
        rows = tf.minimum(tf.shape(batched[0])[0], self.block_rows)
        dy, *blocks = (_to_blocks(x, rows) for x in (*upstream, *batched))
        *of_blocks, of_kernel = pair_products.contract_gradients(
            weights[0], dy, *blocks
        )
        of_batched = [_from_blocks(d, rows, self.dim) for d in of_blocks]
        return of_batched, [of_kernel, tf.reduce_sum(dy, axis=[0, 2])]


@dataclasses.dataclass(frozen=True)
class _PooledLinear:
    """The sums of a linear layer."""

    block_rows: int = _MAX_ROWS

    def forward(self, batched: Tensors, weights: Tensors) -> tuple[Tensors, Tensors]:
        return [_pooled_linear(batched[0], batched[1], *weights)], []

    def backward(
        self, batched: Tensors, weights: Tensors, saved: Tensors, upstream: Tensors
    ) -> tuple[Tensors, Tensors]:
        x, x0 = batched
        dx, dx0, *of_weights = _pooled_linear_gradients(x, x0, weights[0], upstream[0])
        return [dx, dx0], of_weights


def _activation_gradient(
    function: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor, upstream: tf.Tensor
) -> tf.Tensor:
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x, output_gradients=upstream)


def _pooled_linear(
    x: tf.Tensor, x0: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor
) -> tf.Tensor:
    return _gram(x, x0) @ kernel + x0.shape[2] * bias


def _gram(x: tf.Tensor, x0: tf.Tensor) -> tf.Tensor:
    """Returns the products of maps and fields summed over `dim`, in one axis."""
    gram = tf.matmul(x, x0, transpose_b=True)
    return tf.reshape(gram, [-1, x.shape[1] * x0.shape[1]])


def _pooled_linear_gradients(
    x: tf.Tensor, x0: tf.Tensor, kernel: tf.Tensor, upstream: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    """Returns the gradients by `x`, `x0`, kernel and bias."""
    of_gram = tf.matmul(upstream, kernel, transpose_b=True)
    of_gram = tf.reshape(of_gram, [-1, x.shape[1], x0.shape[1]])
    return (
        of_gram @ x0,
        tf.matmul(of_gram, x, transpose_a=True),
        tf.matmul(_gram(x, x0), upstream, transpose_a=True),
        x0.shape[2] * tf.reduce_sum(upstream, axis=0),
    )


def _to_blocks(x: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Turns `[batch, maps, dim]` into `[blocks, maps, rows * dim]`."""
    maps, dim = x.shape[1], x.shape[2]
    x = tf.transpose(tf.reshape(x, [-1, rows, maps, dim]), [0, 2, 1, 3])
    return tf.reshape(x, [-1, maps, rows * dim])


def _from_blocks(x: tf.Tensor, rows: tf.Tensor, dim: int) -> tf.Tensor:
    maps = x.shape[1]
    x = tf.transpose(tf.reshape(x, [-1, maps, rows, dim]), [0, 2, 1, 3])
    return tf.reshape(x, [-1, maps, dim])
