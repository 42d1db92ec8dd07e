"""One checkpoint: a folder whose manifest names all that belongs to it.

    <model_dir>/checkpoints/
      ckpt-00001200/
        manifest.json     contents, with the files' sizes and checksums
        dense.index ...   dense variables and their optimizers' state
        embedding/        rows, as written by the embedding store
        config.yaml       the job's resolved config
      best.json           {"checkpoint": "ckpt-00001200", ...}, if one is kept; with a
                          checksum

A folder without a manifest is not a checkpoint. A delta holds the rows that changed
since another checkpoint, its parent, which its manifest names with the checksum of the
parent's manifest; all else in it is whole. `checkpoint_write` writes one,
`checkpoint_dir` keeps those of a job, and `checkpoint_lock` prevents the removal of
those that are read.
"""

import contextlib
import dataclasses
import os
import pathlib
import weakref
from collections.abc import Mapping
from typing import Any
from typing import TypeAlias

import tensorflow as tf
from absl import logging

from monolith_tf.embedding.saved import files as checkpoint_files
from monolith_tf.embedding.saved import sealed
from monolith_tf.training import checkpoint_lock

FORMAT = 1
LAYERED = 2
"""The format of a delta, and of one whose parts have other than the usual names."""


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


class BrokenChainError(DamagedCheckpointError):
    """A delta that cannot be used, since another one that it needs cannot.

    Attributes:
      link: The checkpoint that is missing, damaged or not the right one.
      why: What is wrong with it.
    """

    def __init__(self, path: pathlib.Path, link: pathlib.Path, why: str) -> None:
        super().__init__(
            f"{path} holds what changed since earlier checkpoints, of which {link} "
            f"cannot be used: {why}"
        )
        self.link = link
        self.why = why


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk, which is not removed while this object lives.

    Attributes:
      path: Its directory.
      manifest: The contents of `manifest.json`: `format`, `step`, `state` (of the
        trainer), `variables` (path -> shape and dtype), `embedding` (of the store),
        `files` (name -> bytes), `checksums` (name -> SHA-256). Where `format` is
        `LAYERED` also `dense` and `config` (names of these parts), `layers` (folders of
        rows, oldest first, relative to `path`), `parent` (`name` and `sha256`, or None)
        and `replaces` (SHA-256 of manifests of the same state that it replaced).
      sha256: The SHA-256 of `manifest.json`.
      parent: What it holds the changes of; None if it is whole.
    """

    path: pathlib.Path
    manifest: Mapping[str, Any]
    sha256: str = ""
    parent: "Checkpoint | None" = None

    @property
    def step(self) -> int:
        """The global step at which it was written."""
        return int(self.manifest["step"])

    @property
    def embedding_dir(self) -> str:
        """Where its newest rows are; `embedding_layers` are all."""
        return self.own_layers[-1]

    @property
    def own_layers(self) -> tuple[str, ...]:
        """The folders of its own rows, oldest first."""
        names = self.manifest.get("layers", ["embedding"])
        return tuple(os.path.normpath(self.path / name) for name in names)

    @property
    def embedding_layers(self) -> tuple[str, ...]:
        """The folders of all rows, oldest first, as `Chain` reads them."""
        return tuple(layer for one in self.chain() for layer in one.own_layers)

    @property
    def dense_prefix(self) -> str:
        """How the paths of the dense variables' files begin."""
        return str(self.path / self.manifest.get("dense", "dense"))

    @property
    def config_path(self) -> pathlib.Path:
        """The job's resolved config."""
        return self.path / self.manifest.get("config", "config.yaml")

    @property
    def num_bytes(self) -> int:
        """The size of its own files."""
        return sum(self.manifest["files"].values())

    def chain(self) -> list["Checkpoint"]:
        """Returns the whole checkpoint that it begins with, and the deltas up to it."""
        links: list[Checkpoint] = []
        link: Checkpoint | None = self
        while link is not None:
            links.append(link)
            link = link.parent
        return links[::-1]

    def without_lock(self) -> "Checkpoint":
        """Returns the same, whose files may be removed."""
        copy: Checkpoint | None = None
        for one in self.chain():
            copy = dataclasses.replace(one, parent=copy)
        return copy or self

    def is_state(self, sha256: str) -> bool:
        """Returns whether a manifest of this checksum is, or was, of this state."""
        return sha256 in (self.sha256, *self.manifest.get("replaces", ()))


Opened: TypeAlias = dict[pathlib.Path, Checkpoint | CheckpointError]


def open_checkpoint(
    path: str | os.PathLike[str], *, opened: Opened | None = None
) -> Checkpoint:
    """Opens a checkpoint and those it needs, checks all files, prevents their removal.

    Args:
      path: Its folder.
      opened: Checkpoints that were opened before, or why they could not be; this one
        and those it needs are added.

    Raises:
      CheckpointError: If there is none, or it has another format.
      DamagedCheckpointError: If a file is missing, or differs from what was written.
      BrokenChainError: If that is so of one that it needs.
    """
    path = pathlib.Path(path)
    opened = {} if opened is None else opened
    deltas: list[Checkpoint] = []  # From this one back to one that is known.
    link = path
    while link not in opened:
        try:
            checkpoint = _open_one(link)
        except CheckpointError as error:
            opened[link] = error
            break
        if checkpoint.manifest.get("parent") is None:
            opened[link] = checkpoint
            break
        deltas.append(checkpoint)
        link = _parent_path(checkpoint)
        if link in [delta.path for delta in deltas]:
            opened[link] = DamagedCheckpointError(f"{link} names itself as a parent.")
    for delta in reversed(deltas):
        opened[delta.path] = _continued(delta, opened[_parent_path(delta)])
    found = opened[path]
    if isinstance(found, CheckpointError):
        raise found
    return found


def _parent_path(delta: Checkpoint) -> pathlib.Path:
    return delta.path.parent / delta.manifest["parent"]["name"]


def _continued(
    delta: Checkpoint, parent: Checkpoint | CheckpointError
) -> Checkpoint | CheckpointError:
    """Returns a delta with its parent, or why it cannot be used."""
    path = _parent_path(delta)
    if isinstance(parent, BrokenChainError):
        return BrokenChainError(delta.path, parent.link, parent.why)
    if isinstance(parent, CheckpointError):
        return BrokenChainError(delta.path, path, getattr(parent, "what", str(parent)))
    if not parent.is_state(delta.manifest["parent"]["sha256"]):
        why = "it is not the one that was continued: its checksum differs."
        return BrokenChainError(delta.path, path, why)
    object.__setattr__(delta, "parent", parent)
    return delta


def _open_one(path: pathlib.Path) -> Checkpoint:
    """Opens a checkpoint without those it needs."""
    manifest_path = path / checkpoint_lock.MANIFEST
    try:
        text, release = checkpoint_lock.read(path)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{path} is not a checkpoint: it has no manifest.json. A checkpoint is a "
            "directory `ckpt-<step>` below `<model_dir>/checkpoints`."
        ) from None
    except sealed.DamagedError as error:
        raise DamagedCheckpointError(str(error)) from None
    with contextlib.ExitStack() as stack:
        stack.callback(release)
        try:
            manifest, is_sealed = sealed.parse(text, manifest_path)
        except sealed.DamagedError as error:
            raise DamagedCheckpointError(str(error)) from None
        checkpoint = Checkpoint(path, manifest, sealed.digest_of(text))
        _check_manifest(checkpoint)
        check_files(checkpoint)
        weakref.finalize(checkpoint, stack.pop_all().close)
    if not is_sealed:
        logging.warning(
            "%s was written by version 0.1.0, without checksums; its manifest is not "
            "verified.",
            path,
        )
    return checkpoint


def _check_manifest(checkpoint: Checkpoint) -> None:
    path, manifest = checkpoint.path, checkpoint.manifest
    if manifest.get("format") not in (FORMAT, LAYERED):
        raise CheckpointError(
            f"{path} has format {manifest.get('format')}; this version reads formats "
            f"{FORMAT} and {LAYERED}. Use the version of monolith_tf that wrote it."
        )
    kinds = {"step": int, "state": dict, "variables": dict, "files": dict}
    if manifest["format"] == LAYERED:
        kinds |= {"layers": list, "dense": str, "config": str}
    for key, kind in {**kinds, "embedding": dict}.items():
        if not isinstance(manifest.get(key), kind):
            raise DamagedCheckpointError(
                f"{path / checkpoint_lock.MANIFEST} is damaged: no `{key}`."
            )


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
