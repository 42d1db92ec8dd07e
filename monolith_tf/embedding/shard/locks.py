"""Reusable names of locks: TensorFlow never ends the thread that it has for each."""

import uuid
import weakref
from typing import Any

from monolith_tf import connected


def name_of(owner: Any, device: str) -> str:
    """Returns the name of a lock that belongs to an object while it lives.

    Destroying locks instead is not safe: a lock's own thread may be its last user, and
    would have to wait for itself to end.

    Args:
      owner: Any object. When it is freed, another one may get the lock.
      device: Where the lock is.

    Returns:
      The `shared_name` of a mutex on that device.
    """
    free = _free_names(device)
    try:
        name = free.pop()
    except IndexError:
        name = f"shard_{uuid.uuid4().hex}"
    weakref.finalize(owner, free.append, name).atexit = False
    return name


@connected.cached
def _free_names(device: str) -> list[str]:
    """Returns the names of unused locks."""
    del device
    return []
