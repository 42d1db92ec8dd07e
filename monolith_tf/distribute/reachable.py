"""Finds out whether other tasks accept connections."""

import concurrent.futures
import socket
from collections.abc import Sequence

from monolith_tf.distribute.task import Task
from monolith_tf.distribute.task import split_address

_CONNECT_SECS = 5.0


def check(others: Sequence[Task]) -> None:
    """Checks that the other tasks accept connections.

    Raises:
      ConnectionError: If one does not, within a bounded time.
    """
    with concurrent.futures.ThreadPoolExecutor(min(32, len(others))) as pool:
        found = list(pool.map(why_not, others))
    problems = [
        f"{other.name} at {other.address} has signed in but cannot be reached: {why}."
        for other, why in zip(others, found, strict=True)
        if why is not None
    ]
    if problems:
        raise ConnectionError(
            "\n".join(problems)
            + "\nCheck names, ports and firewalls between the machines."
        )


def why_not(other: Task) -> str | None:
    """Returns why a task cannot be reached, or None if it can."""
    try:
        address = split_address(other.address or "")
        with socket.create_connection(address, timeout=_CONNECT_SECS):
            return None
    except OSError as error:
        return str(error) or type(error).__name__
