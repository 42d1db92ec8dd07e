"""One pass over files for several threads, each at its own pace."""

import collections
import itertools
import threading
from collections.abc import Callable
from collections.abc import Iterator
from typing import Generic
from typing import TypeVar

_Item = TypeVar("_Item")


class SharedReading(Generic[_Item]):
    """Items that are read once for all threads that iterate over them together.

    The last few items are kept for slower threads. A thread that is further behind
    reads the rest itself, so it never blocks the others.

    Args:
      read: Returns an iterator that starts a new pass.
      window: Items to keep.
    """

    def __init__(self, read: Callable[[], Iterator[_Item]], window: int = 4) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._source = read()
        self._recent: collections.deque[_Item] = collections.deque(maxlen=window)
        self._count = 0
        self._is_done = False
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[_Item]:
        """Yields all items in order.

        Raises:
          Exception: The error of the pass, in every thread.
        """
        for at in itertools.count():
            with self._lock:
                if at == self._count:
                    self._advance()
                if at == self._count:
                    return
                first = self._count - len(self._recent)
                found = [self._recent[at - first]] if at >= first else []
            if not found:
                yield from itertools.islice(self._read(), at, None)
                return
            yield found[0]

    def _advance(self) -> None:
        if self._error is not None:
            raise self._error
        if self._is_done:
            return
        try:
            self._recent.append(next(self._source))
        except StopIteration:
            self._is_done = True
        except Exception as error:
            self._error = error
            raise
        else:
            self._count += 1
