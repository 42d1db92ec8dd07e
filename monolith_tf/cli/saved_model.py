"""Finds SavedModels on disk."""

import pathlib

from absl import logging

from monolith_tf.cli import errors
from monolith_tf.export import versions as versions_lib

FILE = versions_lib.FILE


def find(path: pathlib.Path) -> pathlib.Path:
    """Returns a SavedModel's folder.

    Args:
      path: The folder, or a folder of versions, of which the highest is taken.

    Raises:
      UsageError: If there is no SavedModel.
    """
    if versions_lib.is_model(path):
        return path
    found = versions_lib.models(path)
    if found:
        newest = max(found)
        for number, folder in versions_lib.folders(path).items():
            if number > newest:
                logging.warning("%s is skipped: it has no %s.", folder, FILE)
        return found[newest]
    if not path.exists():
        raise errors.UsageError(f"{path} does not exist.")
    raise errors.UsageError(
        f"{path} is not a SavedModel: it holds neither {FILE} nor a folder of "
        "versions. `monolith-tf export` writes one."
    )


def is_there(path: pathlib.Path) -> bool:
    """Returns whether `find` finds a SavedModel."""
    return versions_lib.is_model(path) or bool(versions_lib.models(path))


def versions_in(path: pathlib.Path) -> list[int]:
    """Returns the numbers of the versions in a folder, lowest first."""
    return list(versions_lib.models(path))
