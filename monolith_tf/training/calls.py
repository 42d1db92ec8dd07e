"""Calls of functions on workers, some of them under way at any time."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import tensorflow as tf

_POLL_SECS = 1.0


class Done(NamedTuple):
    """A finished call: what it was begun with, and what it returned, as NumPy."""

    tag: Any
    result: Any


class Calls:
    """Hands calls to workers and takes their results as they come.

    A call of a worker that dies is repeated by another one; its result is taken once.
    """

    def __init__(self, coordinator: Any, check: Callable[[float], None]) -> None:
        """Makes it.

        Args:
          coordinator: A `tf.distribute.coordinator.ClusterCoordinator`.
          check: Called now and then while waiting, with the seconds waited so far;
            raises where waiting is in vain.
        """
        self._coordinator = coordinator
        self._check = check
        self._finished: queue.SimpleQueue[tuple[Any, Any, bool]] = queue.SimpleQueue()
        self.under_way = 0

    def begin(self, function: Any, args: Sequence[int | list[int]], tag: Any) -> None:
        """Begins a call of a `tf.function` with int64 numbers."""
        numbers = tuple(tf.constant(number, tf.int64) for number in args)
        remote = self._coordinator.schedule(function, args=numbers)
        self.under_way += 1
        # A daemon, since it waits for ever where a server is lost.
        threading.Thread(target=self._fetch, args=(remote, tag), daemon=True).start()

    def _fetch(self, remote: Any, tag: Any) -> None:
        try:
            self._finished.put((tag, remote.fetch(), True))
        except BaseException:  # Or the caller would wait for ever.
            self._finished.put((tag, remote, False))

    def next_done(self) -> Done:
        """Waits for any call under way to end.

        Raises:
          OpError: The error of the call that failed first.
        """
        since = time.monotonic()
        while True:
            self._check(time.monotonic() - since)
            with contextlib.suppress(queue.Empty):
                tag, result, is_fetched = self._finished.get(timeout=_POLL_SECS)
                break
        self.under_way -= 1
        return Done(tag, result if is_fetched else self._fetch_again(result))

    def _fetch_again(self, remote: Any) -> Any:
        """Returns a result that could not be fetched before.

        A worker may be lost while its result is on its way. The coordinator then has
        another one repeat the call, but whoever waits for the result gets the error.
        """
        since = time.monotonic()
        while not self._coordinator.done():  # Raises what failed first, if any did.
            self._check(time.monotonic() - since)
            time.sleep(_POLL_SECS)
        return remote.fetch()
