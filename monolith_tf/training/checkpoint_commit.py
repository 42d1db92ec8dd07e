"""Makes a checkpoint appear, or replaces it, by its manifest."""

import contextlib
import fcntl
import os
import pathlib
import shutil
from collections.abc import Iterator

from absl import logging

from monolith_tf.embedding.saved import parts as parts_lib
from monolith_tf.embedding.saved import sealed
from monolith_tf.training import checkpoint_lock
from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping

ROWS_DIR = "rows-"
"""How folders of rows begin that are written before their checkpoint has a name."""
COMPACT_LOCK = ".compact.lock"
_LOCK = ".replaced.lock"


class ReplacedError(RuntimeError):
    """A checkpoint was replaced or removed by another process in the meantime."""


def commit(path: pathlib.Path, manifest: JsonMapping) -> str:
    """Commits the manifest of a checkpoint whose parts are all there.

    If there is a checkpoint in the folder, this one replaces it at once: the same step
    with a newer state, such as an evaluation after a save. Parts that only the former
    one names are removed, unless it is being read.

    Returns:
      The SHA-256 of the manifest's file.
    """
    text = sealed.seal(manifest)
    folder = parts_lib.Folder(path)
    if not (path / checkpoint_lock.MANIFEST).exists():
        folder.commit(checkpoint_lock.MANIFEST, text)
        return sealed.digest_of(text.encode())
    with _replacing(path):
        _keep_former(path)
        folder.commit(checkpoint_lock.MANIFEST, text)
    # Nobody else writes here but a process that calls `replace`, which then gives up.
    sweep(path)
    remove_unnamed(path)
    return sealed.digest_of(text.encode())


def replace(path: pathlib.Path, manifest: JsonMapping, *, expected: str) -> str:
    """Replaces a manifest by one of the same state, while the job may run.

    Args:
      path: The checkpoint.
      manifest: The new manifest.
      expected: SHA-256 of the present manifest's file.

    Returns:
      The SHA-256 of the new manifest's file.

    Raises:
      ReplacedError: If the checkpoint is no longer the expected one.
    """
    text = sealed.seal(manifest)
    try:
        with _replacing(path):
            if sealed.digest(path / checkpoint_lock.MANIFEST) != expected:
                raise ReplacedError(f"{path} was written again in the meantime.")
            _keep_former(path)
            parts_lib.Folder(path).commit(checkpoint_lock.MANIFEST, text)
    except (FileNotFoundError, NotADirectoryError, sealed.DamagedError) as error:
        raise ReplacedError(f"{path} was removed in the meantime: {error}") from error
    return sealed.digest_of(text.encode())


def sweep(path: pathlib.Path) -> None:
    """Removes parts that only replaced manifests name, unless they are being read."""
    formers = checkpoint_lock.formers(path)
    if not formers:
        return
    folder = parts_lib.Folder(path)
    with checkpoint_lock.whole(formers) as is_free, contextlib.suppress(OSError):
        if not is_free:
            return
        manifest, _ = sealed.unseal(path / checkpoint_lock.MANIFEST)
        for former in formers:
            with contextlib.suppress(sealed.DamagedError):
                named = sealed.unseal(former)[0]["files"]
                for name in set(named) - set(manifest["files"]):
                    folder.remove(name)
            former.unlink()
        _remove_empty(path)


def remove_unnamed(path: pathlib.Path) -> None:
    """Removes the parts in a checkpoint's folder that none of its manifests names."""
    named = {_LOCK, COMPACT_LOCK}
    with contextlib.suppress(OSError, sealed.DamagedError):
        for file in [path / checkpoint_lock.MANIFEST, *checkpoint_lock.formers(path)]:
            named.update(sealed.unseal(file)[0]["files"], [file.name])
        folder = parts_lib.Folder(path)
        for name in set(folder.names()) - named:
            folder.remove(name)
        _remove_empty(path)


def clear(directory: pathlib.Path, keep: tuple[pathlib.Path, ...] = ()) -> None:
    """Removes what killed writers left in the folder of a job's checkpoints.

    Args:
      directory: The folder.
      keep: Folders that are being written.
    """
    for left_over in [*directory.glob(".tmp-*"), *directory.glob(".old-*")]:
        shutil.rmtree(left_over, ignore_errors=True)
    for path in directory.glob("ckpt-*"):
        if not (path / checkpoint_lock.MANIFEST).exists() and path not in keep:
            shutil.rmtree(path, ignore_errors=True)
        else:
            sweep(path)
    apart = [path for path in directory.glob(f"{ROWS_DIR}*") if path not in keep]
    if apart:
        needed = set(_rows_apart(directory))
        for path in apart:
            if path.name not in needed:
                shutil.rmtree(path, ignore_errors=True)


def _rows_apart(directory: pathlib.Path) -> Iterator[str]:
    """Yields the names of folders beside checkpoints in which these have rows."""
    for path in directory.glob("ckpt-*"):
        for file in [path / checkpoint_lock.MANIFEST, *checkpoint_lock.formers(path)]:
            with contextlib.suppress(sealed.DamagedError, OSError):
                manifest: JsonDict = sealed.unseal(file)[0]
                for name in manifest.get("layers", ()):
                    yield pathlib.PurePath(name).name


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[None]:
    """Lets one process at a time replace a checkpoint's manifest."""
    with open(path / _LOCK, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            logging.warning("%s cannot be locked: %s", path, error)
        yield


def _keep_former(path: pathlib.Path) -> None:
    """Gives the present manifest a second name, under which readers hold it."""
    manifest = path / checkpoint_lock.MANIFEST
    former = path / checkpoint_lock.FORMER.format(manifest.stat().st_ino)
    # Without links its readers are not seen, as if the file system had no locks.
    with contextlib.suppress(OSError):
        os.link(manifest, former)


def _remove_empty(path: pathlib.Path) -> None:
    for folder in path.iterdir():
        with contextlib.suppress(OSError):
            folder.rmdir()
