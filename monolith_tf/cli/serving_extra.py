"""Says what to install for the sub-commands that speak with model servers."""

import importlib.util

from monolith_tf.cli import errors


def check() -> None:
    """Checks that the packages of the extra `serving` are there.

    Raises:
      UsageError: If one is not.
    """
    lacking = [
        name
        for name in ("grpc", "tensorflow_serving", "werkzeug")
        if importlib.util.find_spec(name) is None
    ]
    if lacking:
        raise errors.UsageError(
            f"This needs {', '.join(lacking)}: `pip install 'monolith_tf[serving]'`."
        )
