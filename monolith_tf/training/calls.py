"""Asynchronous calls of functions on workers."""

import queue
import threading
import time
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import tensorflow as tf

from monolith_tf.types import Nest

_POLL_SECS = 1.0


class Done(NamedTuple):
    """A finished call: its tag, and what it returned, as NumPy."""

    tag: Any
    result: Nest


class Calls:
    """Schedules calls on workers and returns their results as they finish.

    If a worker dies, another one repeats its call; the result is returned once.
    """

    def __init__(
        self,
        coordinator: tf.distribute.coordinator.ClusterCoordinator,
        check: Callable[[float], None],
    ) -> None:
        """Makes it.

        Args:
          coordinator: A `tf.distribute.coordinator.ClusterCoordinator`.
          check: Called regularly while waiting, with the seconds waited so far; raises
            an error if waiting is useless.
        """
        self._coordinator = coordinator
        self._check = check
        self._finished: queue.SimpleQueue[tuple[Any, Any, bool]] = queue.SimpleQueue()
        self.under_way = 0
        self._since = 0.0  # When a call ended, or began while none was running.

    def begin(
        self,
        function: Callable[..., Nest],
        args: Sequence[Nest],
        tag: object,
    ) -> None:
        """Starts a call of a `tf.function` with int64 numbers, or arrays of them."""
        numbers = tuple(tf.constant(number, tf.int64) for number in args)
        if not self.under_way:
            self._since = time.monotonic()
        remote = self._coordinator.schedule(function, args=numbers)
        self.under_way += 1
        # A daemon, since it waits forever if a server is lost.
        threading.Thread(target=self._fetch, args=(remote, tag), daemon=True).start()

    def _fetch(
        self, remote: tf.distribute.coordinator.RemoteValue, tag: object
    ) -> None:
        try:
            result = remote.fetch()
            # It may be None if the coordinator sees an error at the same moment.
            is_fetched = result is not None
            self._finished.put((tag, result if is_fetched else remote, is_fetched))
        except BaseException:  # Otherwise the caller would wait forever.
            self._finished.put((tag, remote, False))

    def next_done(self) -> Done:
        """Waits until any running call ends.

        Raises:
          OpError: The error of the call that failed first.
        """
        self._since = time.monotonic()
        while True:
            done = self.next_done_within(_POLL_SECS)
            if done is not None:
                return done

    def next_done_within(self, secs: float) -> Done | None:
        """Returns the next call that ends; None if none does in some seconds.

        Raises:
          OpError: The error of the call that failed first.
        """
        self._check(time.monotonic() - self._since)
        try:
            tag, result, is_fetched = self._finished.get(timeout=secs)
        except queue.Empty:
            return None
        self._since = time.monotonic()
        self.under_way -= 1
        return Done(tag, result if is_fetched else self._fetch_again(result))

    def _fetch_again(self, remote: tf.distribute.coordinator.RemoteValue) -> Nest:
        """Returns a result that could not be fetched before.

        A worker may be lost while its result is transferred. The coordinator then lets
        another one repeat the call, but the first fetch raises the error.
        """
        since = time.monotonic()
        while not self._coordinator.done():  # Raises the first error, if any.
            self._check(time.monotonic() - since)
            time.sleep(_POLL_SECS)
        return remote.fetch()
