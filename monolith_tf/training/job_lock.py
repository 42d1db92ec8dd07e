"""One job at a time in a folder."""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
from collections.abc import Iterator

from absl import logging

_NAME = "job.lock"


class JobRunsError(ValueError):
    """Another process trains in the folder."""


@contextlib.contextmanager
def held(model_dir: pathlib.Path) -> Iterator[None]:
    """Keeps other processes from training in a folder.

    The lock is one of the file system. It goes when the process ends, however it ends,
    and it holds between machines and containers where the file system shares locks. The
    file names who has it, for the message only.

    Args:
      model_dir: The job's folder.

    Raises:
      JobRunsError: If another process holds it.
    """
    model_dir.mkdir(parents=True, exist_ok=True)
    with open(model_dir / _NAME, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise _runs(model_dir, file.read()) from None
        except OSError as error:
            logging.warning(
                "%s cannot be locked (%s): make sure that no other process trains in "
                "that folder.",
                model_dir / _NAME,
                error,
            )
        file.truncate(0)
        json.dump({"pid": os.getpid(), "host": socket.gethostname()}, file)
        file.flush()
        yield


def check(model_dir: pathlib.Path) -> None:
    """Looks whether `held` would give a folder now.

    Args:
      model_dir: The job's folder.

    Raises:
      JobRunsError: If another process holds it.
    """
    with (
        contextlib.suppress(FileNotFoundError),
        open(model_dir / _NAME, encoding="utf-8") as file,
    ):
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _runs(model_dir, file.read()) from None
        except OSError:  # `held` says so.
            return


def _runs(model_dir: pathlib.Path, text: str) -> JobRunsError:
    return JobRunsError(
        f"Another process trains in {model_dir} already: {_holder(text)}. End it "
        "first, or give this job another `model_dir`."
    )


def _holder(text: str) -> str:
    try:
        found = json.loads(text)
        return f"process {found['pid']} on {found['host']}"
    except (ValueError, KeyError, TypeError):
        return "it has not said which"
