"""Writes a checkpoint under a temporary name, and renames it last."""

import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from monolith_tf import atomic
from monolith_tf.embedding.saved import sealed
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import dense_variables


def write(
    target: pathlib.Path,
    root: tf.Module,
    store: EmbeddingStore,
    *,
    step: int,
    state: Mapping[str, Any],
    config_yaml: str,
) -> checkpoint_lib.Checkpoint:
    """Writes a checkpoint, which appears complete or not at all.

    Args:
      target: Its directory; replaced if it exists.
      root: Holds the dense variables.
      store: The embedding store.
      step: The global step.
      state: Other values that the job needs to resume; JSON-serializable.
      config_yaml: The job's resolved config.

    Returns:
      The checkpoint; it may be removed.
    """
    temporary = target.with_name(f".tmp-{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        variables = dense_variables.save(root, temporary)
        embedding = store.save(str(temporary / "embedding"), step=step)
        (temporary / "config.yaml").write_text(config_yaml, encoding="utf-8")
        files = _sizes(temporary)
        manifest: dict[str, Any] = {
            "format": checkpoint_lib.FORMAT,
            "step": step,
            "state": dict(state),
            "variables": variables,
            "embedding": embedding,
            "files": files,
            "checksums": {file: sealed.digest(temporary / file) for file in files},
        }
        atomic.write_text(temporary / "manifest.json", sealed.seal(manifest))
        _sync(temporary)
        former = target.with_name(f".old-{target.name}")
        shutil.rmtree(former, ignore_errors=True)
        if target.exists():
            # The same step with a newer state: an evaluation after a save.
            target.rename(former)
        temporary.rename(target)
        shutil.rmtree(former, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return checkpoint_lib.Checkpoint(target, manifest)


def clear(directory: pathlib.Path) -> None:
    """Removes what killed writes left in the directory of the checkpoints."""
    for left_over in [*directory.glob(".tmp-*"), *directory.glob(".old-*")]:
        shutil.rmtree(left_over, ignore_errors=True)


def _sizes(directory: pathlib.Path) -> dict[str, int]:
    return {
        str(file.relative_to(directory)): file.stat().st_size
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }


def _sync(directory: pathlib.Path) -> None:
    """Flushes files and folders to disk before the rename."""
    for file in [*directory.rglob("*"), directory]:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
