"""Initial values of rows: a pure function of a key, the feature id and the column.

Column `c` of an id's row is output `c` of the SplitMix64 generator with initial state
`mix(id ^ key)`, mapped to a value of the distribution. The row therefore does not
depend on the id's shard, on when it is inserted or on the other ids of the batch.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from monolith_tf.embedding.initializer_spec import ConstantSpec
from monolith_tf.embedding.initializer_spec import InitializerSpec
from monolith_tf.embedding.initializer_spec import UniformSpec
from monolith_tf.embedding.initializer_spec import ZerosSpec
from monolith_tf.types import Tensor

_GAMMA = 0x9E37_79B9_7F4A_7C15
_MULTIPLIERS = (0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB)
_SHIFTS = (30, 27, 31)
_CUT = 0.022750131948179207  # Probability of a normal number below -2.


def slice_key(seed: int, table: str, slice_name: str) -> int:
    """Returns the key of a slice's initial values, the same in every process.

    Args:
      seed: The job's seed.
      table: Name of the table.
      slice_name: Name of the slice.

    Returns:
      A number in the range of int64.
    """
    # The lengths make the text unambiguous: different triples give different texts.
    text = f"{seed}:{len(table)}:{table}:{len(slice_name)}:{slice_name}"
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def kind(spec: InitializerSpec) -> str:
    """Returns "uniform" (for constants too), "normal" or "truncated_normal".

    `draw` draws rows of one kind together, each with its own parameters.
    """
    return "uniform" if isinstance(spec, (ZerosSpec, ConstantSpec)) else spec.name


def parameters(spec: InitializerSpec) -> dict[str, float]:
    """Returns the parameters of a distribution, which may differ between rows.

    Returns:
      `offset` and `scale`, applied to a draw of the kind: a uniform number in [0, 1),
      or a normal number with mean 0 and standard deviation 1.
    """
    if isinstance(spec, ZerosSpec):
        return {"offset": 0.0, "scale": 0.0}
    if isinstance(spec, ConstantSpec):
        return {"offset": spec.value, "scale": 0.0}
    if isinstance(spec, UniformSpec):
        return {"offset": spec.minval, "scale": spec.maxval - spec.minval}
    return {"offset": spec.mean, "scale": spec.stddev}


def initial_values(
    spec: InitializerSpec, dim: int, ids: Tensor, key: int | Tensor
) -> Tensor:
    """Returns the initial values of one slice's rows, `[n, dim]`, float32.

    Args:
      spec: The slice's initializer.
      dim: The slice's width.
      ids: Feature ids, `[n]`, int64.
      key: The slice's key, from `slice_key`.
    """
    return draw(kind(spec), parameters(spec), dim, ids, key)


def draw(
    kind: str,
    parameters: Mapping[str, float | Tensor],
    dim: int | Tensor,
    ids: Tensor,
    key: int | Tensor,
) -> Tensor:
    """Returns initial values of rows whose parameters and keys may differ.

    Args:
      kind: A distribution, from `kind`.
      parameters: The result of `parameters`, each value a number or `[n, 1]`.
      dim: Width of the rows.
      ids: Feature ids, `[n]`, int64.
      key: One key, or `[n]`, int64.

    Returns:
      `[n, dim]`, float32.
    """
    offset, scale = parameters["offset"], parameters["scale"]
    if isinstance(scale, (int, float)) and scale == 0:
        return tf.zeros([tf.size(ids), dim]) + offset
    bits = _bits(ids, key, dim)
    if kind == "uniform":
        return offset + scale * _unit_float(bits)
    return offset + scale * _normal(bits, _CUT if kind == "truncated_normal" else 0.0)


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's output function, a one-to-one map of uint64."""
    for shift, multiplier in zip(_SHIFTS[:2], _MULTIPLIERS, strict=True):
        x = tf.bitwise.bitwise_xor(x, _shift_right(x, shift))
        x *= tf.constant(multiplier, tf.uint64)
    return tf.bitwise.bitwise_xor(x, _shift_right(x, _SHIFTS[2]))


def _shift_right(x: Tensor, places: int) -> Tensor:
    return tf.bitwise.right_shift(x, tf.constant(places, tf.uint64))


def _bits(ids: Tensor, key: int | Tensor, dim: int | Tensor) -> Tensor:
    keyed = tf.bitwise.bitwise_xor(ids, tf.convert_to_tensor(key, tf.int64))
    start = _mix(tf.bitcast(keyed, tf.uint64))[:, tf.newaxis]  # [n, 1]
    # Use an array: a traced `tf.constant` converts such a list through float64.
    if isinstance(dim, int):
        jumps = np.arange(1, dim + 1, dtype=np.uint64) * np.uint64(_GAMMA)
    else:
        columns = tf.cast(tf.range(1, dim + 1), tf.uint64)
        jumps = columns * tf.constant(_GAMMA, tf.uint64)
    return _mix(start + jumps)  # [n, dim]


def _unit_float(bits: Tensor) -> Tensor:
    """Returns the 24 high bits as a multiple of 2^-24 in [0, 1), exact in float32."""
    return tf.cast(_shift_right(bits, 40), tf.float32) * 2.0**-24


def _normal(bits: Tensor, cut: float) -> Tensor:
    """Returns the normal quantile of the 52 high bits, without `cut` on either side.

    Computes in float64: the last bits of the quantile function are not reproducible,
    and rounding to float32 removes them.
    """
    unit = (tf.cast(_shift_right(bits, 12), tf.float64) + 0.5) * 2.0**-52  # In (0, 1).
    return tf.cast(tf.math.ndtri(cut + (1.0 - 2.0 * cut) * unit), tf.float32)
