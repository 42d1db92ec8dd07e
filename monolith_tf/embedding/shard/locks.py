"""Locks, whose names are reused: TensorFlow never ends the thread of a lock."""

import uuid
import weakref
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import ClassVar
from typing import TypeVar

import tensorflow as tf

from monolith_tf import connected
from monolith_tf.embedding.shard.bindable import Bindable
from monolith_tf.types import Tensor

_Result = TypeVar("_Result")


class Lock(Bindable):
    """A lock that is held by a thread or by operations of a graph.

    Args:
      device: Where it is.
    """

    own: ClassVar[tuple[str, ...]] = ("_mutex",)

    def __init__(self, device: str) -> None:
        self._device = device
        with tf.device(device):
            self._mutex = tf.raw_ops.MutexV2(shared_name=name_of(self, device))

    def run(self, function: Callable[..., _Result], *args: Any) -> _Result:
        """Runs a function eagerly under the lock, on its device."""
        with tf.device(self._device):
            lock = tf.raw_ops.MutexLock(mutex=self._mutex)
            try:
                return function(*args)
            finally:
                del lock  # The lock is held while this exists.

    def guard(
        self, function: Callable[[], _Result], after: Sequence[Tensor]
    ) -> _Result:
        """Runs a function of a graph under the lock, taken once `after` is available.

        Taken earlier, the lock would make others wait for this step's inputs. It is
        released when the result is available, so the result must depend on everything
        that the function does.
        """
        with tf.control_dependencies(after):
            lock = tf.raw_ops.MutexLock(mutex=self._mutex)
        with tf.control_dependencies([lock]):
            result = function()
        with tf.control_dependencies(tf.nest.flatten(result)):
            released = tf.raw_ops.ConsumeMutexLock(mutex_lock=lock)
        with tf.control_dependencies([released]):
            return tf.nest.map_structure(tf.identity, result)


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
