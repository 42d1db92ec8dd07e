"""Squeeze and excitation with custom gradients, compiled for large inputs."""

import dataclasses
import math
from collections.abc import Callable

import tensorflow as tf

from monolith_tf.layers.functional import compiled
from monolith_tf.layers.functional import forms
from monolith_tf.layers.functional.compiled import Tensors
from monolith_tf.types import Tensor

_BLOCK_ROWS = 64


def senet(
    x: Tensor, w1: tf.Tensor, b1: tf.Tensor, w2: tf.Tensor, b2: tf.Tensor
) -> Tensor:
    """Computes `functional.senet`; small inputs are not compiled."""
    is_list = isinstance(x, (list, tuple))
    batched = list(x) if is_list else [x]
    row_bytes = sum(math.prod(x.shape[1:]) * x.dtype.size for x in batched)
    outputs = compiled.call(
        _Senet(is_list),
        batched,
        [w1, b1, w2, b2],
        min_rows=math.ceil((forms.crossover("senet") or 0) / row_bytes),
    )
    return outputs if is_list else outputs[0]


@dataclasses.dataclass(frozen=True)
class _Senet:
    is_list: bool

    @property
    def block_rows(self) -> int:
        return _BLOCK_ROWS

    def forward(self, batched: Tensors, weights: Tensors) -> tuple[Tensors, Tensors]:
        w1, b1, w2, b2 = weights
        squeezed = self._each(tf.reduce_mean, batched)
        hidden = tf.nn.relu(squeezed @ w1 + b1)  # [batch, units]
        gates = tf.sigmoid(hidden @ w2 + b2)  # [batch, features]
        outputs = [
            x * gate for x, gate in zip(batched, self._spread(gates), strict=True)
        ]
        return outputs, [squeezed, hidden, gates]

    def backward(
        self, batched: Tensors, weights: Tensors, saved: Tensors, upstream: Tensors
    ) -> tuple[Tensors, Tensors]:
        w1, _, w2, _ = weights
        squeezed, hidden, gates = saved
        products = [g * x for g, x in zip(upstream, batched, strict=True)]
        of_gates = self._each(tf.reduce_sum, products)
        of_logits = tf.raw_ops.SigmoidGrad(y=gates, dy=of_gates)
        of_hidden = tf.matmul(of_logits, w2, transpose_b=True)
        of_hidden = tf.raw_ops.ReluGrad(gradients=of_hidden, features=hidden)
        widths = tf.constant([x.shape[-1] for x in batched], w1.dtype)  # one, or all
        of_sums = tf.matmul(of_hidden, w1, transpose_b=True) / widths
        of_batched = [
            g * gate + of_sum
            for g, gate, of_sum in zip(
                upstream, self._spread(gates), self._spread(of_sums), strict=True
            )
        ]
        return of_batched, [
            tf.matmul(squeezed, of_hidden, transpose_a=True),
            tf.reduce_sum(of_hidden, axis=0),
            tf.matmul(hidden, of_logits, transpose_a=True),
            tf.reduce_sum(of_logits, axis=0),
        ]

    def _each(self, reduce: Callable[..., tf.Tensor], batched: Tensors) -> tf.Tensor:
        """Reduces every feature to a number, `[batch, features]`."""
        found = [reduce(x, axis=-1) for x in batched]
        return tf.stack(found, axis=1) if self.is_list else found[0]

    def _spread(self, values: tf.Tensor) -> Tensors:
        """Returns `[batch, features]` in the form of the input, to be multiplied."""
        if not self.is_list:
            return [values[..., tf.newaxis]]
        return [values[:, i : i + 1] for i in range(values.shape[1])]
