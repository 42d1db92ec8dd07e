"""The folder of an export's versions, as a model server polls it."""

import os
import pathlib
import re
import shutil
import time
import uuid

FILE = "saved_model.pb"
"""A folder without this file has no complete model."""

_TEMPORARY = ".tmp-"
_DAY_SECS = 86_400
_NUMBER = re.compile("[0-9]+")


def folders(directory: pathlib.Path) -> dict[int, pathlib.Path]:
    """Returns version -> its folder, lowest first, as a model server finds them.

    A version is a folder whose name is a decimal number of at most 63 bits, with or
    without leading zeros. All else is skipped.
    """
    if not directory.is_dir():
        return {}
    found = {
        int(path.name): path
        for path in directory.iterdir()
        if _NUMBER.fullmatch(path.name) and path.is_dir()
    }
    return {number: found[number] for number in sorted(found) if number < 1 << 63}


def is_model(folder: pathlib.Path) -> bool:
    """Returns whether a version's folder has a model."""
    return (folder / FILE).exists()


def models(directory: pathlib.Path) -> dict[int, pathlib.Path]:
    """Returns those of `folders` that have a model."""
    return {n: path for n, path in folders(directory).items() if is_model(path)}


def versions(directory: pathlib.Path) -> list[int]:
    """Returns the published versions, lowest first."""
    return list(folders(directory))


def make_temporary(directory: pathlib.Path) -> pathlib.Path:
    """Returns a path to write a version to, which servers ignore.

    Removes leftovers of killed exports that are at least a day old.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.glob(_TEMPORARY + "*"):
        if path.stat().st_mtime < time.time() - _DAY_SECS:
            shutil.rmtree(path, ignore_errors=True)
    return directory / f"{_TEMPORARY}{uuid.uuid4().hex}"


def publish(temporary: pathlib.Path, keep: int) -> pathlib.Path:
    """Publishes a version by one rename, and removes old ones.

    Args:
      temporary: The path from `make_temporary`.
      keep: How many versions to keep.

    Returns:
      The version's folder: the current time in seconds, or one more than the highest
      existing version.
    """
    directory = temporary.parent
    _sync(temporary)
    version = max([int(time.time()), *(v + 1 for v in versions(directory))])
    while True:
        try:
            temporary.rename(directory / str(version))
        except OSError:
            # Another export took this number.
            if not (directory / str(version)).exists():
                raise
            version += 1
        else:
            break
    for old in list(folders(directory).values())[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return directory / str(version)


def _sync(directory: pathlib.Path) -> None:
    """Flushes all files to disk, so a published version is complete after a crash."""
    for path in [directory, *directory.rglob("*")]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
