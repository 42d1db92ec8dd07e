"""Names of locks, which are used again: TensorFlow keeps a thread for each for good."""

import uuid
import weakref
from typing import Any

from monolith_tf import connected


def name_of(owner: Any, device: str) -> str:
    """Gives an object a lock, as long as the object is there.

    To destroy locks instead would not be safe: the lock's own thread may be the last to
    use it, and would have to wait for its own end.

    Args:
      owner: Any object. When it is freed, another one may get the lock.
      device: Where the lock is.

    Returns:
      A shared name of mutexes on that device.
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
    """Names of locks that no object has."""
    del device
    return []
