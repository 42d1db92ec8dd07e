"""Squeeze and excitation, compiled."""

import dataclasses
from typing import Any

import tensorflow as tf

from monolith_tf.layers.functional import compiled
from monolith_tf.layers.functional.compiled import Tensors

_MIN_ROWS = 64


def senet(x: Any, w1: tf.Tensor, b1: tf.Tensor, w2: tf.Tensor, b2: tf.Tensor) -> Any:
    """Computes `functional.senet`."""
    is_list = isinstance(x, (list, tuple))
    batched = list(x) if is_list else [x]
    outputs = compiled.call(_Senet(is_list), batched, [w1, b1, w2, b2])
    return outputs if is_list else outputs[0]


@dataclasses.dataclass(frozen=True)
class _Senet:
    is_list: bool

    @property
    def block_rows(self) -> int:
        return _MIN_ROWS

    def forward(self, batched: Tensors, weights: Tensors) -> tuple[Tensors, Tensors]:
        w1, b1, w2, b2 = weights
        squeezed = self._sums(batched) / self._widths(batched)
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
        of_gates = self._sums([g * x for g, x in zip(upstream, batched, strict=True)])
        of_logits = of_gates * gates * (1 - gates)
        of_hidden = tf.matmul(of_logits, w2, transpose_b=True)
        of_hidden = tf.where(hidden > 0, of_hidden, 0)
        of_sums = tf.matmul(of_hidden, w1, transpose_b=True) / self._widths(batched)
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

    def _sums(self, batched: Tensors) -> tf.Tensor:
        """Returns the sum of every feature, `[batch, features]`."""
        sums = [tf.reduce_sum(x, axis=-1) for x in batched]
        return tf.stack(sums, axis=1) if self.is_list else sums[0]

    def _widths(self, batched: Tensors) -> tf.Tensor:
        widths = [x.shape[-1] for x in batched]
        return tf.constant(widths, batched[0].dtype)  # broadcasts for a single tensor

    def _spread(self, values: tf.Tensor) -> Tensors:
        """Returns `[batch, features]` in the form of the input, to be multiplied."""
        if not self.is_list:
            return [values[..., tf.newaxis]]
        return [values[:, i : i + 1] for i in range(values.shape[1])]
