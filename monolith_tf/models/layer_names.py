"""Layer names that do not depend on what else this process has created."""

import contextlib
from collections.abc import Iterator

from tf_keras.src import backend  # The only access to the counts.


@contextlib.contextmanager
def from_zero() -> Iterator[None]:
    """Makes Keras number the layers created inside as in a new process.

    TensorFlow adds the terms of a sum in the order of their operations' names.
    `dense_9` and `dense_10` sort differently from `dense` and `dense_1`, which changes
    the rounding.
    """
    counts = backend.get_default_graph_uid_map()
    before = dict(counts)
    counts.clear()
    try:
        yield
    finally:
        for key, count in before.items():
            counts[key] = max(counts[key], count)
