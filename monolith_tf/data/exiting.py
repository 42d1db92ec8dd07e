"""Stops readers before the interpreter exits.

TensorFlow calls the generator behind a dataset from its own thread, a window ahead of
its use. Python silently ends such a thread when it exits, and TensorFlow then waits for
it forever. So reading is stopped before that, and its end awaited.
"""

import atexit
import sys
import threading
import time
import types

_WAIT_SECS = 10.0
_POLL_SECS = 0.01
# The file in which TensorFlow runs Python functions.
_CALLER = "script_ops.py"

_exiting = threading.Event()


def check() -> None:
    """Raises RuntimeError if the interpreter is about to exit."""
    if _exiting.is_set():
        raise RuntimeError("Reading has stopped because the interpreter is exiting.")


@atexit.register
def _stop_and_wait() -> None:
    """Waits a while until TensorFlow runs no more Python functions."""
    _exiting.set()
    end = time.monotonic() + _WAIT_SECS
    quiet = 0
    # Twice, since a clean-up call may follow a call that ends.
    while quiet < 2 and time.monotonic() < end:
        own = threading.get_ident()
        frames = sys._current_frames()
        running = any(_is_call(f) for ident, f in frames.items() if ident != own)
        quiet = 0 if running else quiet + 1
        time.sleep(_POLL_SECS)


def _is_call(frame: types.FrameType | None) -> bool:
    """Returns whether a thread runs a Python function for TensorFlow."""
    while frame is not None:
        if frame.f_code.co_filename.endswith(_CALLER):
            return True
        frame = frame.f_back
    return False
