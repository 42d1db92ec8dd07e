"""Checkpoints: whole directories that appear at once, or not at all.

    <model_dir>/checkpoints/
      ckpt-00001200/
        manifest.json     what the checkpoint holds, with the sizes of its files
        dense.index ...   dense variables and their optimizers' state
        embedding/        rows, as the embedding store writes them
        config.yaml       the job's resolved config
      best.json           {"checkpoint": "ckpt-00001200", ...}, where one is kept
      held.json           the same of one that another process is reading

A checkpoint is written under a temporary name and renamed last. A directory without a
manifest that fits its files is not a checkpoint.
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from absl import logging

FORMAT = 1
_NAME = re.compile(r"ckpt-(\d+)")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used, with what is wrong and what to do."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk.

    Attributes:
      path: Its directory.
      manifest: What `manifest.json` holds: `format`, `step`, `state` (the trainer's
        own), `variables` (path -> shape and dtype), `embedding` (the store's own),
        `files`.
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


def named_variables(root: tf.Module) -> dict[str, tf.Variable]:
    """Returns attribute path -> variable, which does not depend on Keras' counters.

    A variable that is cut into blocks, one per parameter server, is there as a whole.
    """
    view = tf.train.TrackableView(root)
    paths: dict[int, str] = {id(root): ""}
    queue = [root]
    found: dict[str, tf.Variable] = {}
    while queue:
        parent = queue.pop(0)
        for name, child in view.children(parent).items():
            if id(child) in paths:
                continue
            path = f"{paths[id(parent)]}/{name}".lstrip("/")
            paths[id(child)] = path
            is_cut = getattr(child, "is_sharded_variable", False)
            if is_cut or isinstance(child, tf.Variable):
                found[path] = child
            else:
                queue.append(child)
    return found


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Opens a checkpoint and checks that its files are whole.

    Raises:
      CheckpointError: If there is none, or a file is missing or cut short.
    """
    path = pathlib.Path(path)
    manifest_path = path / "manifest.json"
    if not manifest_path.exists():
        raise CheckpointError(
            f"{path} is not a checkpoint: it has no manifest.json. A checkpoint is a "
            "directory `ckpt-<step>` below `<model_dir>/checkpoints`."
        )
    try:
        manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{manifest_path} is damaged: {error}.") from None
    if manifest.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {manifest.get('format')}; this version reads format "
            f"{FORMAT}. Use the version of monolith_tf that wrote it."
        )
    for name, size in manifest["files"].items():
        file = path / name
        if not file.exists() or file.stat().st_size != size:
            held = file.stat().st_size if file.exists() else "no"
            raise CheckpointError(
                f"{file} is damaged: it should have {size} bytes and has {held}. "
                "Delete this checkpoint; the job then resumes from the one before."
            )
    return Checkpoint(path, manifest)


class CheckpointDir:
    """The checkpoints of one job.

    Attributes:
      path: `<model_dir>/checkpoints`.
    """

    def __init__(self, path: str | os.PathLike[str], *, keep: int = 5) -> None:
        """Opens the folder; it need not exist.

        Args:
          path: The folder.
          keep: How many of the newest checkpoints stay, at least 1; the best one is
            kept apart from them.
        """
        if keep < 1:
            raise ValueError(f"`keep` must be at least 1. Received: keep={keep}.")
        self.path = pathlib.Path(path)
        self._keep = keep

    def names(self) -> list[str]:
        """Returns the names of all checkpoint directories, oldest first."""
        if not self.path.exists():
            return []
        found = (_NAME.fullmatch(entry.name) for entry in self.path.iterdir())
        steps = {match[0]: int(match[1]) for match in found if match}
        return sorted(steps, key=lambda name: steps[name])

    def latest(self) -> Checkpoint | None:
        """Returns the newest complete checkpoint; damaged ones are passed over."""
        for name in reversed(self.names()):
            try:
                return open_checkpoint(self.path / name)
            except CheckpointError as error:
                logging.warning("Passing over a checkpoint: %s", error)
        return None

    def best(self) -> Checkpoint | None:
        """Returns the checkpoint marked as best, or None."""
        mark = self._marked("best")
        return open_checkpoint(self.path / mark["checkpoint"]) if mark else None

    def mark_best(self, name: str, metric: str, value: float) -> None:
        """Keeps the checkpoint `name` until another is marked."""
        self._mark("best", {"checkpoint": name, "metric": metric, "value": value})

    def best_value(self, metric: str) -> float | None:
        """Returns the value of the best checkpoint, if it was marked by `metric`."""
        mark = self._marked("best")
        return mark["value"] if mark.get("metric") == metric else None

    def hold(self, name: str) -> None:
        """Keeps the checkpoint `name` until another is held: somebody reads it."""
        self._mark("held", {"checkpoint": name})

    def _mark(self, kind: str, mark: Mapping[str, Any]) -> None:
        write_text(self.path / f"{kind}.json", json.dumps(mark))

    def _marked(self, kind: str) -> dict[str, Any]:
        path = self.path / f"{kind}.json"
        if not path.exists():
            return {}
        return json.loads(path.read_text(encoding="utf-8"))

    def save(
        self,
        root: tf.Module,
        store: Any,
        *,
        step: int,
        state: Mapping[str, Any],
        config_yaml: str = "",
    ) -> Checkpoint:
        """Writes a checkpoint; it appears whole or not at all.

        Args:
          root: Holds the dense variables.
          store: The embedding store.
          step: The global step.
          state: What else the job needs to go on; JSON-able.
          config_yaml: The job's resolved config.

        Returns:
          The checkpoint.
        """
        name = f"ckpt-{step:08d}"
        target = self.path / name
        temporary = self.path / f".tmp-{name}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            variables = named_variables(root)
            tf.train.Checkpoint(**_slots(variables)).write(str(temporary / "dense"))
            embedding = store.save(str(temporary / "embedding"), step=step)
            (temporary / "config.yaml").write_text(config_yaml, encoding="utf-8")
            manifest = {
                "format": FORMAT,
                "step": step,
                "state": dict(state),
                "variables": {
                    path: [list(variable.shape), variable.dtype.name]
                    for path, variable in variables.items()
                },
                "embedding": embedding,
                "files": _sizes(temporary),
            }
            write_text(temporary / "manifest.json", json.dumps(manifest))
            _sync(temporary)
            former = self.path / f".old-{name}"
            if target.exists():
                # The same step again, with a newer state: an evaluation after a save.
                target.rename(former)
            temporary.rename(target)
            shutil.rmtree(former, ignore_errors=True)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._prune()
        return Checkpoint(target, manifest)

    def _prune(self) -> None:
        for left_over in [*self.path.glob(".tmp-*"), *self.path.glob(".old-*")]:
            shutil.rmtree(left_over, ignore_errors=True)
        kept = [self._marked(kind).get("checkpoint") for kind in ("best", "held")]
        for name in self.names()[: -self._keep]:
            if name not in kept:
                shutil.rmtree(self.path / name, ignore_errors=True)


def restore_dense(checkpoint: Checkpoint, root: tf.Module) -> None:
    """Gives the dense variables below `root` the values of a checkpoint.

    Raises:
      CheckpointError: If names, shapes or types differ, naming each difference.
    """
    variables = named_variables(root)
    saved = checkpoint.manifest["variables"]
    wrong = []
    for path, variable in variables.items():
        here = [list(variable.shape), variable.dtype.name]
        if path not in saved:
            wrong.append(f"the config builds `{path}` {here}; the checkpoint lacks it")
        elif saved[path] != here:
            wrong.append(
                f"`{path}` is {saved[path]} in the checkpoint; the config builds {here}"
            )
    wrong += [
        f"the checkpoint holds `{path}` {saved[path]}; the config builds no such thing"
        for path in saved
        if path not in variables
    ]
    if wrong:
        raise CheckpointError(
            f"{checkpoint.path} does not fit the config:\n  "
            + "\n  ".join(wrong[:20])
            + ("" if len(wrong) <= 20 else f"\n  and {len(wrong) - 20} more")
            + "\nMend the config, or train in another `model_dir` (with "
            "`trainer.warm_start` to take over what fits)."
        )
    _read(checkpoint, variables)


def restore_matching(
    checkpoint: Checkpoint, root: tf.Module, prefix: str = ""
) -> list[str]:
    """Restores the dense variables that fit by path, shape and type.

    Args:
      checkpoint: The checkpoint.
      root: Holds the variables.
      prefix: What their paths begin with; the others stay as they are.

    Returns:
      The paths that did not fit.
    """
    variables = {
        path: variable
        for path, variable in named_variables(root).items()
        if path.startswith(prefix)
    }
    saved = checkpoint.manifest["variables"]
    fitting = {
        path: variable
        for path, variable in variables.items()
        if saved.get(path) == [list(variable.shape), variable.dtype.name]
    }
    _read(checkpoint, fitting)
    return sorted(set(variables) - set(fitting))


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file that appears whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _read(checkpoint: Checkpoint, variables: Mapping[str, tf.Variable]) -> None:
    reader = tf.train.Checkpoint(**_slots(variables))
    reader.read(str(checkpoint.path / "dense")).expect_partial()


def _slots(variables: Mapping[str, tf.Variable]) -> dict[str, tf.Variable]:
    """Attribute names for `tf.train.Checkpoint`, one a variable, made of its path."""
    return {path.replace("/", "."): variable for path, variable in variables.items()}


def _sizes(directory: pathlib.Path) -> dict[str, int]:
    return {
        str(file.relative_to(directory)): file.stat().st_size
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }


def _sync(directory: pathlib.Path) -> None:
    """Has the system write files and folders to the disk before the rename."""
    for file in [*directory.rglob("*"), directory]:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
