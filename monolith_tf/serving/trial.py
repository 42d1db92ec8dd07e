"""Lets one server try an update before the others get it."""

import contextlib
import threading
from collections.abc import Iterator

from monolith_tf.serving import guard as guard_lib

_OPEN, _TRIED, _PASSED, _REFUSED = range(4)


class Trial:
    """The verdict on one update, for the threads that update one server each.

    The first thread that asks tries it. The others wait for the verdict.

    Args:
      guard: Decides; None passes every update.
    """

    def __init__(self, guard: guard_lib.Guard | None) -> None:
        self.guard = guard
        self._state = _PASSED if guard is None else _OPEN
        self._why = ""
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def turn(self) -> Iterator[bool]:
        """Yields whether this thread's server tries the update.

        If its code raises RefusedError, so do the others. If it fails otherwise, one of
        the others tries.

        Raises:
          RefusedError: If another server's trial ended so.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._state != _TRIED)
            if self._state == _REFUSED:
                raise guard_lib.RefusedError(self._why)
            is_first = self._state == _OPEN
            if is_first:
                self._state = _TRIED
        try:
            yield is_first
        except guard_lib.RefusedError as error:
            self._settle(is_first, _REFUSED, str(error))
            raise
        except BaseException:
            self._settle(is_first, _OPEN)
            raise
        self._settle(is_first, _PASSED)

    def _settle(self, is_first: bool, state: int, why: str = "") -> None:
        if is_first:
            with self._changed:
                self._state, self._why = state, why
                self._changed.notify_all()
