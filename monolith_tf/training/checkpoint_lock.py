"""Locks checkpoints, so that none is removed while it is read.

A reader holds a shared lock on the manifest. The system frees it when the reader ends
in any way. A manifest that is replaced stays in the folder under another name, with its
parts, until nobody holds it.
"""

import contextlib
import fcntl
import os
import pathlib
import shutil
import time
from collections.abc import Callable
from collections.abc import Iterator

from absl import logging

from monolith_tf.embedding.saved import sealed

MANIFEST = "manifest.json"
FORMER = ".former-{}.json"
_TRIES = 100
_WAIT_SECS = 0.01


def take(path: pathlib.Path) -> Callable[[], None]:
    """Prevents the removal of a checkpoint until the returned function is called.

    Raises:
      FileNotFoundError: If it has been removed.
    """
    return read(path)[1]


def read(path: pathlib.Path) -> tuple[bytes, Callable[[], None]]:
    """Returns a checkpoint's manifest, and prevents its removal.

    Returns:
      The text of the manifest, and a function that allows the removal again.

    Raises:
      FileNotFoundError: If the checkpoint has been removed.
    """
    file = path / MANIFEST
    for _ in range(_TRIES):
        stack = contextlib.ExitStack()
        with stack:
            descriptor = os.open(file, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            if _lock_shared(descriptor, path):
                with sealed.reading(file), open(os.dup(descriptor), "rb") as opened:
                    text = opened.read()
                # Otherwise it was replaced, and its parts may have been removed.
                if os.path.samestat(os.fstat(descriptor), os.stat(file)):
                    return text, stack.pop_all().close
        time.sleep(_WAIT_SECS)
    raise FileNotFoundError(f"{path} is being removed.")


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
    with whole([path / MANIFEST, *formers(path)]) as is_free:
        if not is_free:
            return
        # Without a manifest it cannot be opened.
        with contextlib.suppress(OSError):
            os.remove(path / MANIFEST)
    shutil.rmtree(path, ignore_errors=True)


def formers(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the manifests of a checkpoint that were replaced."""
    return sorted(path.glob(FORMER.format("*")))


@contextlib.contextmanager
def whole(manifests: list[pathlib.Path]) -> Iterator[bool]:
    """Keeps readers out of manifests; gives False if one is being read."""
    with contextlib.ExitStack() as stack:
        yield all([_lock_whole(stack, file) for file in _distinct(manifests)])


def _distinct(files: list[pathlib.Path]) -> Iterator[pathlib.Path]:
    """Yields the files that exist, one name of each."""
    seen: set[tuple[int, int]] = set()
    for file in files:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = file.stat()
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                yield file


def _lock_shared(descriptor: int, path: pathlib.Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        logging.warning(
            "%s cannot be locked (%s): it may be removed while it is read. Raise "
            "`trainer.keep_checkpoints`.",
            path,
            error,
        )
    return True


def _lock_whole(stack: contextlib.ExitStack, file: pathlib.Path) -> bool:
    try:
        descriptor = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        return True
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        logging.warning(
            "%s cannot be locked before removal: %s", file.parent.resolve(), error
        )
    return True
