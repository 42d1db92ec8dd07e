"""Writes a checkpoint: its parts into its folder, and the manifest last."""

import os
import pathlib
import re
import shutil
import uuid
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from monolith_tf.embedding.saved import files as rows_files
from monolith_tf.embedding.saved import parts as parts_lib
from monolith_tf.embedding.saved import sealed
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import checkpoint_commit
from monolith_tf.training import checkpoint_lock
from monolith_tf.training import dense_variables
from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping


class Writing:
    """A checkpoint that is being written; none of it counts before `finish`.

    Attributes:
      layers: The folders of rows so far, relative to the checkpoint's.

    Args:
      target: Its folder. If there is a checkpoint in it, `finish` replaces that one.
    """

    def __init__(self, target: pathlib.Path) -> None:
        self._target = target
        self._is_new = not (target / checkpoint_lock.MANIFEST).exists()
        if self._is_new:  # Perhaps a kill left something.
            shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True, exist_ok=True)
        self._parts = parts_lib.Folder(target)
        self._suffix = free_suffix(target)
        self.layers: list[str] = []

    def layer(self) -> str:
        """Returns a new folder for rows; the first is for a copy, others go on top."""
        tail = "-tail" if self.layers else ""
        name = f"embedding{self._suffix}{tail}"
        self.layers.append(name)
        return str(self._target / name)

    def add_layer(self, folder: pathlib.Path) -> None:
        """Makes rows that lie beside the checkpoint, by `rows_folder`, part of it."""
        self.layers.append(os.path.relpath(folder, self._target))

    def finish(
        self,
        root: tf.Module,
        embedding: JsonMapping,
        *,
        step: int,
        state: JsonMapping,
        config_yaml: str,
        parent: checkpoint_lib.Checkpoint | None = None,
    ) -> checkpoint_lib.Checkpoint:
        """Writes all but the rows, and the manifest.

        Args:
          root: Holds the dense variables.
          embedding: What `EmbeddingStore.save` returned for the newest layer.
          step: The global step.
          state: Other values that the job needs to resume; JSON-serializable.
          config_yaml: The job's resolved config.
          parent: The checkpoint of which the rows hold the changes; None if they are
            all rows.

        Returns:
          The checkpoint; it may be removed.
        """
        dense, config = f"dense{self._suffix}", f"config{self._suffix}.yaml"
        variables: dict[str, list[Any]] = {}

        def write_dense(folder: pathlib.Path) -> None:
            variables.update(dense_variables.save(root, folder / dense))

        written = self._parts.put_files(write_dense)
        part = self._parts.put(config)
        part.write(config_yaml.encode())
        written.append(part.close())
        for name in self.layers:
            is_newest = name == self.layers[-1]
            written.extend(self._rows(name, embedding if is_newest else None))
        written.sort(key=lambda entry: entry["name"])
        manifest: JsonDict = {
            "format": checkpoint_lib.FORMAT,
            "step": step,
            "state": dict(state),
            "variables": variables,
            "embedding": dict(embedding),
            "files": {entry["name"]: entry["bytes"] for entry in written},
            "checksums": {entry["name"]: entry["sha256"] for entry in written},
        }
        if parent is not None or self._suffix or self.layers != ["embedding"]:
            manifest |= {
                "format": checkpoint_lib.LAYERED,
                "dense": dense,
                "config": config,
                "layers": self.layers,
                "parent": parent
                and {"name": parent.path.name, "sha256": parent.sha256},
                "replaces": [],
            }
        sha256 = checkpoint_commit.commit(self._target, manifest)
        parent = parent and parent.without_lock()
        return checkpoint_lib.Checkpoint(self._target, manifest, sha256, parent)

    def abandon(self) -> None:
        """Removes what was written; a checkpoint that was there before stays."""
        if self._is_new:
            shutil.rmtree(self._target, ignore_errors=True)
        else:
            checkpoint_commit.remove_unnamed(self._target)

    def _rows(self, layer: str, manifest: JsonMapping | None) -> Iterator[JsonDict]:
        """Describes the files of a folder of rows, as parts of the checkpoint."""
        folder = parts_lib.Folder(self._target / layer)
        if manifest is None:
            path = self._target / layer / rows_files.MANIFEST
            manifest = sealed.unseal(path)[0]
        known: dict[str, JsonDict] = {}
        if "groups" in manifest:
            entries = rows_files.all_files(dict(manifest))
            known = {entry["name"]: entry for entry in entries if "sha256" in entry}
        for name in folder.names():
            entry = known.get(name) or folder.entry(name)
            yield {**entry, "name": f"{layer}/{name}"}


def rows_folder(directory: pathlib.Path) -> pathlib.Path:
    """Returns a new folder for rows of a checkpoint whose step is not known yet."""
    return directory / f"{checkpoint_commit.ROWS_DIR}{uuid.uuid4().hex[:12]}"


def free_suffix(target: pathlib.Path) -> str:
    """Returns an end for the names of parts that no part in a folder has."""
    if not any(target.iterdir()):
        return ""
    numbers = [
        re.match(r"(?:dense|config|embedding)-(\d+)", n.name) for n in target.iterdir()
    ]
    return f"-{max((int(found[1]) for found in numbers if found), default=1) + 1}"
