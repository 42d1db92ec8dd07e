"""Turns a chain of deltas into a whole checkpoint, while the job may run."""

import contextlib
import fcntl
import pathlib
import shutil
from collections.abc import Iterator
from typing import NamedTuple

from absl import logging

from monolith_tf.embedding.saved import compact as rows_compact
from monolith_tf.embedding.saved import files as rows_files
from monolith_tf.embedding.saved import parts as parts_lib
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import checkpoint_commit
from monolith_tf.training import checkpoint_lock
from monolith_tf.training import checkpoint_write
from monolith_tf.types import JsonDict

_COPY_BYTES = 1 << 22


class Compacted(NamedTuple):
    """What a compaction did.

    Attributes:
      path: The checkpoint that is whole now.
      step: Its step.
      links: How many checkpoints it consisted of.
      bytes_before: Their size.
      bytes_after: Its size.
    """

    path: pathlib.Path
    step: int
    links: int
    bytes_before: int
    bytes_after: int


def in_place(path: pathlib.Path) -> Compacted | None:
    """Makes a delta whole: its folder then holds all rows, and it has no parent.

    Its manifest is replaced at once, and records the checksum of the former one, so
    that deltas that continue it stay valid. A kill leaves the former one. Neither this
    nor the job removes what the other reads; the job removes checkpoints that are no
    longer needed when it writes its next ones.

    Args:
      path: The checkpoint.

    Returns:
      What was done; None if it is whole already.

    Raises:
      CheckpointError: If it cannot be used, or is being compacted by another process.
      ReplacedError: If the job wrote or removed it in the meantime.
    """
    with _alone(path):
        done = _in_place(path)
    if done is not None:
        # Only now is the former manifest no longer held by this process.
        checkpoint_commit.sweep(path)
    return done


def _in_place(path: pathlib.Path) -> Compacted | None:
    checkpoint = checkpoint_lib.open_checkpoint(path)
    if len(checkpoint.embedding_layers) == 1:
        return None
    name = f"embedding{checkpoint_write.free_suffix(path)}"
    try:
        entries = _entries(checkpoint, name, _write_rows(checkpoint, path / name))
        manifest: JsonDict = {
            **checkpoint.manifest,
            "format": checkpoint_lib.LAYERED,
            "embedding": entries.pop("embedding"),
            **entries,
            "layers": [name],
            "parent": None,
            "replaces": [checkpoint.sha256, *checkpoint.manifest.get("replaces", ())],
        }
        checkpoint_commit.replace(path, manifest, expected=checkpoint.sha256)
    except BaseException as error:
        shutil.rmtree(path / name, ignore_errors=True)
        if isinstance(error, FileNotFoundError):
            raise checkpoint_commit.ReplacedError(
                f"{path} was written again or removed in the meantime."
            ) from error
        raise
    return _done(checkpoint, path, sum(manifest["files"].values()))


def copy(source: checkpoint_lib.Checkpoint, path: pathlib.Path) -> Compacted:
    """Writes a whole checkpoint of the same state into another folder.

    Args:
      source: The checkpoint.
      path: A new or empty folder.

    Raises:
      ValueError: If the folder is not empty.
    """
    if path.exists() and any(path.iterdir()):
        raise ValueError(f"`path` must be a new or empty folder. Received: {path}.")
    folder = parts_lib.Folder(path)
    try:
        embedding = _write_rows(source, path / "embedding")
        files = {"config.yaml": source.config_path}
        prefix = pathlib.Path(source.dense_prefix)
        for file in sorted(prefix.parent.glob(f"{prefix.name}.*")):
            files["dense" + file.name.removeprefix(prefix.name)] = file
        written = [_copied(folder, name, file) for name, file in files.items()]
        written += _rows("embedding", path, embedding)
        kept = ("step", "state", "variables")
        manifest = {
            "format": checkpoint_lib.FORMAT,
            **{key: source.manifest[key] for key in kept},
            "embedding": embedding,
            "files": {entry["name"]: entry["bytes"] for entry in written},
            "checksums": {entry["name"]: entry["sha256"] for entry in written},
        }
        checkpoint_commit.commit(path, manifest)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return _done(source, path, sum(manifest["files"].values()))


def _write_rows(
    checkpoint: checkpoint_lib.Checkpoint, folder: pathlib.Path
) -> JsonDict:
    """Writes all rows of a checkpoint to a folder; returns their manifest."""
    return rows_compact.write(str(folder), checkpoint.embedding_layers)


def _done(
    checkpoint: checkpoint_lib.Checkpoint, path: pathlib.Path, bytes_after: int
) -> Compacted:
    chain = checkpoint.chain()
    bytes_before = sum(link.num_bytes for link in chain)
    return Compacted(path, checkpoint.step, len(chain), bytes_before, bytes_after)


def _entries(
    checkpoint: checkpoint_lib.Checkpoint, name: str, embedding: JsonDict
) -> JsonDict:
    """Returns what a manifest says of the parts: the present ones, but other rows."""
    former = tuple(f"{layer}/" for layer in checkpoint.manifest["layers"])
    rows = _rows(name, checkpoint.path, embedding)
    found: JsonDict = {"embedding": embedding}
    for key, of_entry in (("files", "bytes"), ("checksums", "sha256")):
        kept = {
            file: value
            for file, value in checkpoint.manifest[key].items()
            if not file.startswith(former)
        }
        found[key] = kept | {entry["name"]: entry[of_entry] for entry in rows}
    return found


def _rows(name: str, path: pathlib.Path, embedding: JsonDict) -> list[JsonDict]:
    """Describes the files of rows, as parts of the checkpoint in `path`."""
    manifest = parts_lib.Folder(path / name).entry(rows_files.MANIFEST)
    entries = [*rows_files.all_files(embedding), manifest]
    return [{**entry, "name": f"{name}/{entry['name']}"} for entry in entries]


def _copied(folder: parts_lib.Folder, name: str, source: pathlib.Path) -> JsonDict:
    part = folder.put(name)
    with open(source, "rb") as file:
        while block := file.read(_COPY_BYTES):
            part.write(block)
    return part.close()


@contextlib.contextmanager
def _alone(path: pathlib.Path) -> Iterator[None]:
    """Lets one process at a time compact a checkpoint."""
    if not (path / checkpoint_lock.MANIFEST).exists():
        raise checkpoint_lib.CheckpointError(f"{path} is not a checkpoint.")
    with open(path / checkpoint_commit.COMPACT_LOCK, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise checkpoint_lib.CheckpointError(
                f"Another process compacts {path}."
            ) from None
        except OSError as error:
            logging.warning("%s cannot be locked: %s", path, error)
        yield
