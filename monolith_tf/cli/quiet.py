"""Imports TensorFlow without its start-up messages."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator


def import_tensorflow(*, verbose: bool) -> None:
    """Imports TensorFlow and lets it look for devices.

    Args:
      verbose: Whether to show all its messages. Otherwise its output during the import
        is dropped, unless the import fails, and later only errors are shown.
    """
    if verbose:
        import tensorflow as tf

        return
    # TensorFlow reads it when it loads; earlier messages go to file descriptor 2.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _held_back_stderr():
        import tensorflow as tf

        tf.config.list_physical_devices()
    tf.get_logger().setLevel("ERROR")


@contextlib.contextmanager
def _held_back_stderr() -> Iterator[None]:
    """Holds back output to file descriptor 2, and shows it only after an error."""
    sys.stderr.flush()
    try:
        stderr = os.dup(2)
    except OSError:  # It is closed: nothing to hold back.
        yield
        return
    with tempfile.TemporaryFile() as held, os.fdopen(stderr, "wb") as shown:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            shutil.copyfileobj(held, shown)
            raise
        finally:
            sys.stderr.flush()
            shown.flush()
            os.dup2(shown.fileno(), 2)
