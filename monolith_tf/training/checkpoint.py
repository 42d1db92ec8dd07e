"""One checkpoint: a directory that is complete, or is not a checkpoint.

    <model_dir>/checkpoints/
      ckpt-00001200/
        manifest.json     contents, with the files' sizes and checksums
        dense.index ...   dense variables and their optimizers' state
        embedding/        rows, as written by the embedding store
        config.yaml       the job's resolved config
      best.json           {"checkpoint": "ckpt-00001200", ...}, if one is kept; with a
                          checksum

A directory without a manifest that fits its files is not a checkpoint.
`checkpoint_write` writes one, `checkpoint_dir` keeps those of a job, and
`checkpoint_lock` prevents the removal of those that are read.
"""

import dataclasses
import os
import pathlib
import weakref
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from absl import logging

from monolith_tf.embedding.saved import files as checkpoint_files
from monolith_tf.embedding.saved import sealed
from monolith_tf.training import checkpoint_lock

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says why and what to do."""


class DamagedCheckpointError(CheckpointError, sealed.DamagedError):
    """A checkpoint whose files differ from what was written.

    Attributes:
      what: The part of the message that says what is damaged, not what to do.
    """

    def __init__(self, what: str, way_out: str = "") -> None:
        super().__init__(f"{what} {way_out}".rstrip())
        self.what = what


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk, which is not removed while this object lives.

    Attributes:
      path: Its directory.
      manifest: The contents of `manifest.json`: `format`, `step`, `state` (of the
        trainer), `variables` (path -> shape and dtype), `embedding` (of the store),
        `files` (name -> bytes), `checksums` (name -> SHA-256).
    """

    path: pathlib.Path
    manifest: Mapping[str, Any]

    @property
    def step(self) -> int:
        """The global step at which it was written."""
        return int(self.manifest["step"])

    @property
    def embedding_dir(self) -> str:
        """Where the rows are."""
        return str(self.path / "embedding")


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Opens a checkpoint, checks all its files, and prevents its removal.

    Raises:
      CheckpointError: If there is none, or it has another format.
      DamagedCheckpointError: If a file is missing, or differs from what was written.
    """
    path = pathlib.Path(path)
    manifest_path = path / "manifest.json"
    try:
        release = checkpoint_lock.take(path)
        manifest, is_sealed = sealed.unseal(manifest_path)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{path} is not a checkpoint: it has no manifest.json. A checkpoint is a "
            "directory `ckpt-<step>` below `<model_dir>/checkpoints`."
        ) from None
    except sealed.DamagedError as error:
        raise DamagedCheckpointError(str(error)) from None
    if manifest.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {manifest.get('format')}; this version reads format "
            f"{FORMAT}. Use the version of monolith_tf that wrote it."
        )
    kinds = {"step": int, "state": dict, "variables": dict, "files": dict}
    for key, kind in {**kinds, "embedding": dict}.items():
        if not isinstance(manifest.get(key), kind):
            raise DamagedCheckpointError(f"{manifest_path} is damaged: no `{key}`.")
    checkpoint = Checkpoint(path, manifest)
    weakref.finalize(checkpoint, release)
    check_files(checkpoint)
    if not is_sealed:
        logging.warning(
            "%s was written by version 0.1.0, without checksums; its manifest is not "
            "verified.",
            path,
        )
    return checkpoint


def check_files(checkpoint: Checkpoint, prefix: str = "") -> None:
    """Compares files with their sizes and checksums in the manifest.

    Args:
      checkpoint: The checkpoint.
      prefix: How the names of the files to check begin.

    Raises:
      DamagedCheckpointError: If a file is missing, or differs from what was written.
    """
    files, path = checkpoint.manifest["files"], checkpoint.path
    checksums = checkpoint.manifest.get("checksums", {})
    way_out = "Delete this checkpoint; the job then resumes from the one before it."
    for name, size in files.items():
        if not name.startswith(prefix):
            continue
        file = path / name
        if not file.exists() or file.stat().st_size != size:
            reason = f"{file} is missing."
            if file.exists():
                found = file.stat().st_size
                reason = f"{file} is damaged: it should have {size} bytes, but has "
                reason += f"{found}."
            raise DamagedCheckpointError(reason, way_out)
        if checksums and _digest(file) != checksums[name]:
            raise DamagedCheckpointError(
                f"{file} is damaged: it differs from its checksum.", way_out
            )
    if not prefix and not checksums and "embedding/manifest.json" in files:
        # Version 0.1.0 has checksums of rows, and TensorFlow's checksums of variables.
        try:
            reader = tf.train.load_checkpoint(str(path / "dense"))
            for name in reader.get_variable_to_shape_map():
                reader.get_tensor(name)
            rows = checkpoint_files.read_manifest(checkpoint.embedding_dir)
            checkpoint_files.verify(checkpoint.embedding_dir, rows)
        except (sealed.DamagedError, tf.errors.OpError, ValueError) as error:
            raise DamagedCheckpointError(f"{path} is damaged: {error}") from None


def _digest(file: pathlib.Path) -> str:
    try:
        return sealed.digest(file)
    except sealed.DamagedError as error:
        raise DamagedCheckpointError(str(error)) from error
