"""Runs a function in a fork of this process, which has already imported TensorFlow."""

import os
import pathlib
import signal
import sys
import time
import traceback
from collections.abc import Callable


def preload(package: pathlib.Path) -> None:
    """Imports TensorFlow if the package uses it.

    Runs no op: a fork does not have the threads that an op starts, and would hang.
    """
    sources = (path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    if not any("import tensorflow" in source for source in sources):
        return
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import pyarrow.parquet  # noqa: F401
    import pydantic  # noqa: F401
    import tensorflow  # noqa: F401
    import tf_keras.src.engine.training  # noqa: F401


def _end(pid: int) -> None:
    """Ends the fork and all processes that its tests left running."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def run(function: Callable[[], int], output: pathlib.Path, limit: float) -> int | None:
    """Returns the return value of `function`, or None after `limit` seconds.

    Args:
      function: Returns an exit code, 0 to 255.
      output: File for the fork's output.
      limit: Seconds, after which the fork is killed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            mode = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(output, mode, 0o644), 1)
            os.dup2(1, 2)
            code = function()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    ended = 0
    deadline = time.monotonic() + limit
    try:
        while not ended and time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            time.sleep(0 if ended else 0.02)
    finally:
        _end(pid)
        if not ended:
            os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) if ended else None
