"""Raw feature values to int64 feature ids, in TensorFlow and in plain Python.

A feature id keeps the slot of the feature's table in bits 48 to 62 and a 48-bit hash of
the raw value in bits 0 to 47; bit 63 is never set, so ids are not negative. The same
TensorFlow operations make ids in training and inside an exported SavedModel.

Integers in [0, 2^48) are mixed by a bijection, so two of them never collide. Other
integers do not fit. A table for such integers is `exact`: its ids are the integers
themselves, all 64 bits, without a slot, and no other table shares its index. A table
that hashes passes such an integer through splitmix64 and keeps 48 bits, which may
collide with another value's hash. Any other table has no row for it. Strings are
hashed; among n distinct strings of one slot n (n - 1) / 2^49 pairs are expected to
collide, which is 0.2 pairs at 10 million strings and 0.002 at one million.
"""

import functools
from collections.abc import Sequence
from typing import Literal

from monolith_tf.types import Tensor

LargeIntegers = Literal["exact", "hash"]
"""How a table handles integers outside [0, 2^48), if it accepts them."""

HASH_BITS = 48
SLOT_BITS = 15
NUM_SLOTS = 1 << SLOT_BITS

_HASH_MASK = (1 << HASH_BITS) - 1
_MASK_64 = (1 << 64) - 1

# The bijection on 48 bits: add, then xor-shift and multiply by an odd number twice,
# then xor-shift. Each step can be undone modulo 2^48.
_OFFSET = 0x9E37_79B9_7F4B
_ROUNDS = ((24, 0xFF51_AFD7_ED55), (23, 0xC4CE_B9FE_1A85), (25, 1))

# splitmix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators",
# OOPSLA 2014): the same form on 64 bits.
_GAMMA_64 = 0x9E37_79B9_7F4A_7C15
_ROUNDS_64 = ((30, 0xBF58_476D_1CE4_E5B9), (27, 0x94D0_49BB_1331_11EB), (31, 1))


def from_integers(values: Tensor, *, are_small: bool = False) -> Tensor:
    """Returns the 48-bit hash of integers, as int64 in [0, 2^48).

    A bijection on [0, 2^48); integers outside that range go through splitmix64 first,
    and may collide with another value's hash.

    Args:
      values: Integers of any shape.
      are_small: Whether all are known to be in that range, which saves work.
    """
    import tensorflow as tf

    x = tf.bitcast(tf.cast(values, tf.int64), tf.uint64)
    x = x if are_small else _folded(x)
    mask = tf.constant(_HASH_MASK, tf.uint64)
    x = tf.bitwise.bitwise_and(x + tf.constant(_OFFSET, tf.uint64), mask)
    return tf.bitcast(_mix(x, _ROUNDS, _HASH_MASK), tf.int64)


def from_small_integers(values: Tensor) -> Tensor:
    """Returns the 48-bit hash of integers in [0, 2^48), and negative ids for others.

    Args:
      values: Integers of any shape.

    Returns:
      int64; negative for an integer outside that range, and so with any slot.
    """
    import tensorflow as tf

    values = tf.cast(values, tf.int64)
    sign = tf.where(_are_small(values), tf.constant(0, tf.int64), tf.int64.min)
    return tf.bitwise.bitwise_or(from_integers(values), sign)


def all_small(values: Sequence[Tensor]) -> Tensor:
    """Returns whether all integers are in [0, 2^48), a bool scalar.

    Args:
      values: int64 tensors of any shapes, at least one.
    """
    import tensorflow as tf

    # As unsigned numbers, negative ones are larger than all others.
    unsigned = [tf.reduce_max(tf.bitcast(x, tf.uint64)) for x in values]
    largest = functools.reduce(tf.maximum, unsigned)
    return largest <= tf.constant(_HASH_MASK, tf.uint64)


def to_integers(hashed: Tensor) -> Tensor:
    """Returns the integers in [0, 2^48) that `from_integers` hashed to these.

    Args:
      hashed: int64 in [0, 2^48), of any shape.
    """
    import tensorflow as tf

    mask = tf.constant(_HASH_MASK, tf.uint64)
    x = tf.bitcast(tf.convert_to_tensor(hashed, tf.int64), tf.uint64)
    for shift, factor in reversed(_ROUNDS):
        if factor != 1:
            inverse = tf.constant(pow(factor, -1, 1 << HASH_BITS), tf.uint64)
            x = tf.bitwise.bitwise_and(x * inverse, mask)
        # Undo x ^= x >> shift: by x ^= (x >> shift) ^ (x >> 2 shift) ^ ...
        terms = [
            tf.bitwise.right_shift(x, tf.constant(bits, tf.uint64))
            for bits in range(shift, HASH_BITS, shift)
        ]
        x = functools.reduce(tf.bitwise.bitwise_xor, terms, x)
    x = x + tf.constant((1 << 64) - _OFFSET, tf.uint64)
    return tf.bitcast(tf.bitwise.bitwise_and(x, mask), tf.int64)


def folded(values: Sequence[Tensor], hashes: Sequence[Tensor | bool]) -> list[Tensor]:
    """Maps integers to [0, 2^48), as `from_integers` does before it hashes them.

    If all are in that range, as in most batches, it only checks that.

    Args:
      values: int64 tensors of any shapes.
      hashes: For each tensor, which of its integers outside that range are hashed,
        bool, of a shape that broadcasts; the others become -1.
    """
    import tensorflow as tf

    if not values:
        return []

    def fold(x: Tensor, is_hashed: Tensor | bool) -> Tensor:
        inside = tf.bitcast(_folded(tf.bitcast(x, tf.uint64)), tf.int64)
        return tf.where(_are_small(x) | is_hashed, inside, tf.constant(-1, tf.int64))

    found: list[Tensor] = tf.cond(
        all_small(values),
        lambda: list(values),
        lambda: [fold(*both) for both in zip(values, hashes, strict=True)],
    )
    return found


def from_strings(values: Tensor) -> Tensor:
    """Returns the 48-bit hash of strings, as int64 in [0, 2^48).

    Args:
      values: Strings of any shape.
    """
    import tensorflow as tf

    return tf.strings.to_hash_bucket_fast(values, 1 << HASH_BITS)


def with_slot(slot: int, hashed: Tensor) -> Tensor:
    """Returns the feature ids of 48-bit hashes under one slot.

    Args:
      slot: In [0, 32768).
      hashed: int64 in [0, 2^48), as `from_integers` and `from_strings` return.

    Raises:
      ValueError: If the slot does not fit 15 bits.
    """
    import tensorflow as tf

    check_slot(slot)
    return tf.bitwise.bitwise_or(tf.constant(slot << HASH_BITS, tf.int64), hashed)


def slot_of(ids: Tensor) -> Tensor:
    """Returns the slots, int64 in [0, 32768), of feature ids."""
    import tensorflow as tf

    return tf.bitwise.right_shift(ids, tf.constant(HASH_BITS, tf.int64))


def hash_of(ids: Tensor) -> Tensor:
    """Returns the 48-bit hashes of feature ids."""
    import tensorflow as tf

    return tf.bitwise.bitwise_and(ids, tf.constant(_HASH_MASK, tf.int64))


def check_slot(slot: int) -> None:
    """Raises ValueError if `slot` does not fit the slot bits of a feature id."""
    if not 0 <= slot < NUM_SLOTS:
        raise ValueError(
            f"`slot` must be in [0, {NUM_SLOTS}). Received: slot={slot}. "
            "Leave it out to have one assigned."
        )


def hash_integer(value: int) -> int:
    """Returns the hash of `from_integers` for one int64, without TensorFlow."""
    x = value & _MASK_64
    if x > _HASH_MASK:
        x = _mix_integer((x + _GAMMA_64) & _MASK_64, _ROUNDS_64, _MASK_64) & _HASH_MASK
    return _mix_integer((x + _OFFSET) & _HASH_MASK, _ROUNDS, _HASH_MASK)


def to_integer(hashed: int) -> int:
    """Returns the integer in [0, 2^48) whose `from_integers` hash is `hashed`.

    Args:
      hashed: The low 48 bits of a feature id made from an integer.

    Raises:
      ValueError: If `hashed` is not in [0, 2^48).

    Example:
      >>> to_integer(hash_integer(1234))
      1234
    """
    if not 0 <= hashed <= _HASH_MASK:
        raise ValueError(
            f"`hashed` must be in [0, 2^{HASH_BITS}). Received: hashed={hashed}. "
            f"Take the low {HASH_BITS} bits of the feature id."
        )
    x = hashed
    for shift, factor in reversed(_ROUNDS):
        x = x * pow(factor, -1, 1 << HASH_BITS) & _HASH_MASK
        # Undo x ^= x >> shift; two terms do, since 3 * shift > 48.
        x ^= (x >> shift) ^ (x >> 2 * shift)
    return (x - _OFFSET) & _HASH_MASK


def _are_small(values: Tensor) -> Tensor:
    """Returns which int64 are in [0, 2^48)."""
    return (values >= 0) & (values <= _HASH_MASK)


def _folded(x: Tensor) -> Tensor:
    """Maps uint64 to [0, 2^48); values in that range do not change."""
    import tensorflow as tf

    mask = tf.constant(_HASH_MASK, tf.uint64)
    wide = _mix(x + tf.constant(_GAMMA_64, tf.uint64), _ROUNDS_64, _MASK_64)
    return tf.where(x <= mask, x, tf.bitwise.bitwise_and(wide, mask))


def _mix(x: Tensor, rounds: tuple[tuple[int, int], ...], mask: int) -> Tensor:
    """Applies x = (x ^ (x >> shift)) * factor & mask for each round, on uint64."""
    import tensorflow as tf

    for shift, factor in rounds:
        x = tf.bitwise.bitwise_xor(
            x, tf.bitwise.right_shift(x, tf.constant(shift, tf.uint64))
        )
        if factor != 1:
            x *= tf.constant(factor, tf.uint64)
            if mask != _MASK_64:
                x = tf.bitwise.bitwise_and(x, tf.constant(mask, tf.uint64))
    return x


def _mix_integer(x: int, rounds: tuple[tuple[int, int], ...], mask: int) -> int:
    """The same as `_mix` on one Python integer."""
    for shift, factor in rounds:
        x = (x ^ (x >> shift)) * factor & mask
    return x
