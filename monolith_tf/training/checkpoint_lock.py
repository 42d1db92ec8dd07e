"""Locks checkpoints, so that none is removed while it is read.

A reader holds a shared lock on the manifest. The system frees it when the reader ends
in any way.
"""

import contextlib
import fcntl
import functools
import os
import pathlib
import shutil
from collections.abc import Callable
from collections.abc import Iterator

from absl import logging


def take(path: pathlib.Path) -> Callable[[], None]:
    """Prevents the removal of a checkpoint until the returned function is called.

    Raises:
      FileNotFoundError: If it has been removed.
    """
    descriptor = os.open(path / "manifest.json", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise FileNotFoundError(f"{path} is being removed.") from None
    except OSError as error:
        logging.warning(
            "%s cannot be locked (%s): it may be removed while it is read. Raise "
            "`trainer.keep_checkpoints`.",
            path,
            error,
        )
    return functools.partial(os.close, descriptor)


@contextlib.contextmanager
def held(path: pathlib.Path) -> Iterator[None]:
    """Prevents the removal of a checkpoint, by this job or another.

    Raises:
      FileNotFoundError: If it has been removed.
    """
    release = take(path)
    try:
        yield
    finally:
        release()


def remove(path: pathlib.Path) -> None:
    """Removes a checkpoint unless another process reads it."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        descriptor = os.open(path / "manifest.json", os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Without a manifest it cannot be opened.
            os.remove(path / "manifest.json")
        except BlockingIOError:
            return
        except OSError as error:
            logging.warning("%s cannot be locked before removal: %s", path, error)
        finally:
            os.close(descriptor)
    shutil.rmtree(path, ignore_errors=True)
