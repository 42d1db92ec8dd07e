"""The folder of an export's versions, as a model server polls it."""

import os
import pathlib
import re
import shutil
import time
import uuid

FILE = "saved_model.pb"
"""Without it a folder is no model, or not yet."""

_TEMPORARY = ".tmp-"
_DAY_SECS = 86_400
_NUMBER = re.compile("[0-9]+")


def folders(directory: pathlib.Path) -> dict[int, pathlib.Path]:
    """Returns version -> its folder, lowest first, as a model server finds them.

    A version is a folder whose name is a number of 63 bits in decimal digits, with
    leading zeros or without. All else is passed over.
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
    """Returns whether a version's folder holds a model already."""
    return (folder / FILE).exists()


def versions(directory: pathlib.Path) -> list[int]:
    """Returns the published versions, lowest first."""
    return list(folders(directory))


def make_temporary(directory: pathlib.Path) -> pathlib.Path:
    """Returns a path for a version to be written to, which no server looks at.

    What exports that were killed left there a day ago or earlier is removed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.glob(_TEMPORARY + "*"):
        if path.stat().st_mtime < time.time() - _DAY_SECS:
            shutil.rmtree(path, ignore_errors=True)
    return directory / f"{_TEMPORARY}{uuid.uuid4().hex}"


def publish(temporary: pathlib.Path, keep: int) -> pathlib.Path:
    """Makes a whole version of what was written, by one rename, and drops old ones.

    Args:
      temporary: What `make_temporary` gave.
      keep: How many versions stay.

    Returns:
      The version's folder: the present time in seconds, or one more than the highest
      there is.
    """
    directory = temporary.parent
    _sync(temporary)
    version = max([int(time.time()), *(v + 1 for v in versions(directory))])
    while True:
        try:
            temporary.rename(directory / str(version))
        except OSError:
            # Another export was quicker.
            if not (directory / str(version)).exists():
                raise
            version += 1
        else:
            break
    for old in list(folders(directory).values())[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return directory / str(version)


def _sync(directory: pathlib.Path) -> None:
    """Makes sure that what was written is on disk before it can be seen."""
    for path in [directory, *directory.rglob("*")]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
