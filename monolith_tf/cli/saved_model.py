"""Finds SavedModels on disk."""

import pathlib

from monolith_tf.cli import errors

FILE = "saved_model.pb"


def find(path: pathlib.Path) -> pathlib.Path:
    """Returns a SavedModel's folder.

    Args:
      path: The folder, or one of versions, of which the highest number is taken.

    Raises:
      UsageError: If there is no SavedModel.
    """
    if (path / FILE).exists():
        return path
    versions = versions_in(path)
    if versions:
        return path / str(versions[-1])
    if not path.exists():
        raise errors.UsageError(f"{path} does not exist.")
    raise errors.UsageError(
        f"{path} is not a SavedModel: it holds neither {FILE} nor a folder of "
        "versions. `monolith-tf export` writes one."
    )


def versions_in(path: pathlib.Path) -> list[int]:
    """Returns the numbers of the versions in a folder, lowest first."""
    if not path.is_dir():
        return []
    return sorted(
        int(entry.name)
        for entry in path.iterdir()
        if entry.name.isdecimal() and (entry / FILE).exists()
    )
