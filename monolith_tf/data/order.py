"""Reading order and held-out rows as pure functions of integers.

Both use splitmix64's mixing function and not a generator, so they are the same on every
machine and with every version of NumPy.
"""

import numpy as np

_GAMMA = 0x9E37_79B9_7F4A_7C15
_MASK = (1 << 64) - 1

PIECES = 1
WINDOWS = 2
HELD_OUT = 3
NEGATIVES = 4


def permutation(num: int, *key: int) -> np.ndarray:
    """Returns the numbers below `num` in an order drawn by `key`, int64 [num]."""
    # Distinct inputs have distinct hashes, so there are no ties to break.
    return np.argsort(_mix(np.arange(num, dtype=np.uint64) + _state(key)))


def held_out(rows: np.ndarray, fraction: float, *key: int) -> np.ndarray:
    """Returns which rows belong to a share drawn by `key`, bool [rows].

    Args:
      rows: Row numbers, not negative.
      fraction: The share, in [0, 1).
      *key: What the draw depends on, besides the row number.
    """
    limit = np.uint64(int(fraction * 2.0**64))
    return _mix(rows.astype(np.uint64) + _state(key)) < limit


def below(num: int, places: np.ndarray, *key: int) -> np.ndarray:
    """Returns for each place a number below `num`, int64 [places].

    Args:
      num: How many numbers there are, at least 1.
      places: The places to draw for, not negative.
      *key: What the draw depends on, besides the place.
    """
    hashed = _mix(places.astype(np.uint64) + _state(key))
    return (hashed % np.uint64(num)).astype(np.int64)


def _state(key: tuple[int, ...]) -> np.uint64:
    """Folds integers into one 64-bit state."""
    state = np.zeros(1, np.uint64)
    for part in key:
        state = _mix(state + np.uint64(part & _MASK))
    return state[0]


def _mix(x: np.ndarray) -> np.ndarray:
    """Returns splitmix64 of each element of a uint64 array: a bijection."""
    x = x + np.uint64(_GAMMA)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return x ^ (x >> np.uint64(31))
