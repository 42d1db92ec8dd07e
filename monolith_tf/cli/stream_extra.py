"""Checks for the packages of the sub-commands that use topics."""

import importlib.util

from monolith_tf.cli import errors


def check() -> None:
    """Checks that the packages of the extra `stream` are installed.

    Raises:
      UsageError: If one is missing; the message gives the `pip` command.
    """
    lacking = [
        name
        for name in ("confluent_kafka", "fastavro", "orjson")
        if importlib.util.find_spec(name) is None
    ]
    if lacking:
        raise errors.UsageError(
            f"This needs {', '.join(lacking)}: `pip install 'monolith_tf[stream]'`."
        )
