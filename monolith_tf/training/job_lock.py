"""Locks a folder, so that one job at a time trains in it."""

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
    """Prevents other processes from training in a folder.

    The file system holds the lock. It is freed when the process ends in any way, and it
    works between machines and containers if the file system shares locks. The file
    names the process that holds it, only for the message.

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
    """Checks that `held` would succeed now.

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
        except OSError:  # `held` warns of it.
            return


def _runs(model_dir: pathlib.Path, text: str) -> JobRunsError:
    return JobRunsError(
        f"Another process already trains in {model_dir}: {_holder(text)}. End it "
        "first, or give this job another `model_dir`."
    )


def _holder(text: str) -> str:
    try:
        found = json.loads(text)
        return f"process {found['pid']} on {found['host']}"
    except (ValueError, KeyError, TypeError):
        return "its id is not known"
