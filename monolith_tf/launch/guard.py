"""Ends the tasks of a launcher that was killed; the launcher runs `python guard.py`.

It reads lines: `+ PID KIND` for a process that has started, `- PID` for one that has
ended. When its input ends, because the launcher was killed, the chief may write a
checkpoint before the other tasks are ended.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable

_CHECKPOINT_SECS = 300.0


def main(lines: Iterable[str]) -> None:
    """Follows a launcher until it is gone, then ends its remaining tasks."""
    alive: dict[int, str] = {}
    for line in lines:
        sign, pid, *kind = line.split()
        if sign == "+":
            alive[int(pid)] = kind[0]
        else:
            del alive[int(pid)]
    chiefs = [pid for pid, kind in alive.items() if kind == "chief"]
    _end(chiefs)
    deadline = time.monotonic() + _CHECKPOINT_SECS
    while any(map(_runs, chiefs)) and time.monotonic() < deadline:
        time.sleep(0.1)
    _end(pid for pid in alive if pid not in chiefs)


def _end(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main(sys.stdin)
