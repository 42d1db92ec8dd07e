"""The log of Kafka clients, without repetitions."""

import logging
import re
import time
from collections.abc import Callable

from absl import logging as absl_logging

_SECS = 60.0


class OncePerMinute(logging.Filter):
    """Drops records that differ only in numbers from one of the last minute.

    librdkafka logs each attempt to connect, several per second.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Makes it.

        Args:
          clock: Returns seconds.
        """
        super().__init__()
        self._clock = clock
        self._seen: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether a record is logged."""
        text = re.sub(r"\d+", "", record.getMessage())
        now = self._clock()
        if now - self._seen.get(text, -_SECS) < _SECS:
            return False
        self._seen = {k: t for k, t in self._seen.items() if now - t < _SECS}
        self._seen[text] = now
        return True


def logger() -> logging.Logger:
    """Returns a logger for one client."""
    made = logging.Logger("kafka", absl_logging.get_absl_logger().getEffectiveLevel())
    made.parent = absl_logging.get_absl_logger()
    made.addFilter(OncePerMinute())
    return made
