"""Names of a model's layers, whatever else this process has made."""

import contextlib
from collections.abc import Iterator

from tf_keras.src import backend  # Only this has the counts.


@contextlib.contextmanager
def from_zero() -> Iterator[None]:
    """Lets Keras number the layers made inside as a new process would.

    TensorFlow adds up the terms of a sum in the order of the names of their
    operations. With `dense_9` and `dense_10` that is another order than with `dense`
    and `dense_1`, and so another rounding.
    """
    counts = backend.get_default_graph_uid_map()
    before = dict(counts)
    counts.clear()
    try:
        yield
    finally:
        for key, count in before.items():
            counts[key] = max(counts[key], count)
