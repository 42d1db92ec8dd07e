"""Checkpoints: directories that appear complete, or not at all.

    <model_dir>/checkpoints/
      ckpt-00001200/
        manifest.json     contents, with the files' sizes and checksums
        dense.index ...   dense variables and their optimizers' state
        embedding/        rows, as written by the embedding store
        config.yaml       the job's resolved config
      best.json           {"checkpoint": "ckpt-00001200", ...}, if one is kept; with a
                          checksum

A checkpoint is written under a temporary name and renamed last. A directory without a
manifest that fits its files is not a checkpoint. A reader holds a shared lock on the
manifest, so the checkpoint is not removed; the system frees it when the reader ends.
"""

import contextlib
import dataclasses
import fcntl
import functools
import os
import pathlib
import re
import shutil
import weakref
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import TypeVar

import tensorflow as tf
from absl import logging

from monolith_tf.embedding.saved import files as checkpoint_files
from monolith_tf.embedding.saved import sealed
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.training import former_paths

FORMAT = 1
_NAME = re.compile(r"ckpt-(\d+)")

_Result = TypeVar("_Result")


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


def named_variables(root: tf.Module) -> dict[str, tf.Variable]:
    """Returns attribute path -> variable; paths do not depend on Keras' counters.

    A variable that is sharded over parameter servers is a single entry.
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
    """Opens a checkpoint, checks all its files, and prevents its removal.

    Raises:
      CheckpointError: If there is none, or it has another format.
      DamagedCheckpointError: If a file is missing, or differs from what was written.
    """
    path = pathlib.Path(path)
    manifest_path = path / "manifest.json"
    try:
        release = _hold(path)
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
    _check_files(checkpoint)
    if not is_sealed:
        logging.warning(
            "%s was written by version 0.1.0, without checksums; its manifest is not "
            "verified.",
            path,
        )
    return checkpoint


def _check_files(checkpoint: Checkpoint, prefix: str = "") -> None:
    """Compares files with a prefix with their sizes and checksums in the manifest."""
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


def _hold(path: pathlib.Path) -> Callable[[], None]:
    """Prevents the removal of a checkpoint until the returned function is called."""
    descriptor = os.open(path / "manifest.json", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise FileNotFoundError(f"{path} is being removed.") from None
    except OSError as error:
        logging.warning(
            "%s cannot be locked (%s): it may be removed while it is read. Raise "
            "`trainer.keep_checkpoints`.",
            path,
            error,
        )
    return functools.partial(os.close, descriptor)


@contextlib.contextmanager
def hold(path: pathlib.Path) -> Iterator[None]:
    """Prevents the removal of a checkpoint, by this job or another.

    Raises:
      FileNotFoundError: If it has been removed.
    """
    release = _hold(path)
    try:
        yield
    finally:
        release()


def _remove(path: pathlib.Path) -> None:
    """Removes a checkpoint unless another process reads it."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        descriptor = os.open(path / "manifest.json", os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Without a manifest it cannot be opened.
            os.remove(path / "manifest.json")
        except BlockingIOError:
            return
        except OSError as error:
            logging.warning("%s cannot be locked before removal: %s", path, error)
        finally:
            os.close(descriptor)
    shutil.rmtree(path, ignore_errors=True)


class CheckpointDir:
    """The checkpoints of one job.

    Attributes:
      path: `<model_dir>/checkpoints`.
    """

    def __init__(self, path: str | os.PathLike[str], *, keep: int = 5) -> None:
        """Opens the folder; it need not exist.

        Args:
          path: The folder.
          keep: How many of the newest checkpoints to keep, at least 1; the best one is
            kept in addition.
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
        """Returns the newest complete checkpoint; skips damaged ones."""
        return next(self.whole(), None)

    def use_latest(
        self, use: Callable[[Checkpoint], _Result], *, prefer_best: bool = False
    ) -> _Result | None:
        """Calls a function with the newest complete checkpoint.

        If the checkpoint turns out to be damaged while it is read, the function is
        called again with the one before it, and so on.

        Args:
          use: Reads the checkpoint. Values read from a damaged one must not matter when
            it is called with another.
          prefer_best: Whether to begin with the one marked as best, if there is one.

        Returns:
          What the function returned; None if there is no checkpoint.

        Raises:
          CheckpointError: If there are checkpoints, but all are damaged.
        """
        for checkpoint in self.whole(prefer_best=prefer_best):
            try:
                return use(checkpoint)
            except sealed.DamagedError as error:
                logging.warning("Skipping a checkpoint while reading it: %s", error)
        if not self.names():
            return None
        raise CheckpointError(
            f"No checkpoint in {self.path} can be used; the warnings above say why. To "
            "start from the beginning, remove that folder, or train in another "
            "`model_dir`."
        )

    def whole(
        self, *, prefer_best: bool = False, before: str | None = None
    ) -> Iterator[Checkpoint]:
        """Yields complete checkpoints, the newest first; skips damaged ones.

        Args:
          prefer_best: Whether to begin with the one marked as best, if there is one.
          before: Name of a checkpoint; yields only those older than it.
        """
        best = self.best() if prefer_best else None
        if best is not None:
            yield best
        names = self.names()
        if before in names:
            names = names[: names.index(before)]
        for name in reversed(names):
            try:
                checkpoint = open_checkpoint(self.path / name)
            except CheckpointError as error:
                logging.warning("Skipping a checkpoint: %s", error)
            else:
                yield checkpoint

    def best(self) -> Checkpoint | None:
        """Returns the checkpoint marked as best; None if there is none, or damaged."""
        mark = self._marked("best")
        if not mark:
            return None
        try:
            return open_checkpoint(self.path / mark["checkpoint"])
        except CheckpointError as error:
            logging.warning("Skipping the best checkpoint: %s", error)
            return None

    def mark_best(
        self,
        name: str,
        metric: str,
        value: float,
        evaluated_on: Mapping[str, Any] | None = None,
    ) -> None:
        """Keeps the checkpoint `name` until another is marked.

        Args:
          name: Of the checkpoint.
          metric: By what it is the best.
          value: The metric's.
          evaluated_on: What was evaluated, as JSON has it.
        """
        mark = {"checkpoint": name, "metric": metric, "value": value}
        self._mark("best", {**mark, "evaluated_on": evaluated_on})

    def best_mark(self) -> dict[str, Any]:
        """Returns what `mark_best` was called with; empty where there is no mark."""
        return self._marked("best")

    def _mark(self, kind: str, mark: Mapping[str, Any]) -> None:
        write_text(self.path / f"{kind}.json", sealed.seal(mark))

    def _marked(self, kind: str) -> dict[str, Any]:
        path = self.path / f"{kind}.json"
        if not path.exists():
            return {}
        try:
            mark, _ = sealed.unseal(path)
        except sealed.DamagedError as error:
            logging.warning("Ignoring a mark: %s", error)
            return {}
        return mark

    def save(
        self,
        root: tf.Module,
        store: EmbeddingStore,
        *,
        step: int,
        state: Mapping[str, Any],
        config_yaml: str = "",
    ) -> Checkpoint:
        """Writes a checkpoint, which appears complete or not at all.

        Args:
          root: Holds the dense variables.
          store: The embedding store.
          step: The global step.
          state: Other values that the job needs to resume; JSON-serializable.
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
            manifest: dict[str, Any] = {
                "format": FORMAT,
                "step": step,
                "state": dict(state),
                "variables": {
                    path: _kind(variable) for path, variable in variables.items()
                },
                "embedding": embedding,
                "files": _sizes(temporary),
            }
            manifest["checksums"] = {
                file: sealed.digest(temporary / file) for file in manifest["files"]
            }
            write_text(temporary / "manifest.json", sealed.seal(manifest))
            _sync(temporary)
            former = self.path / f".old-{name}"
            shutil.rmtree(former, ignore_errors=True)
            if target.exists():
                # The same step with a newer state: an evaluation after a save.
                target.rename(former)
            temporary.rename(target)
            shutil.rmtree(former, ignore_errors=True)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._prune(name)
        return Checkpoint(target, manifest)

    def _prune(self, written: str) -> None:
        """Removes old checkpoints, but none newer than the one just written.

        Newer ones are damaged, or belong to an abandoned history; they do not count.
        """
        for left_over in [*self.path.glob(".tmp-*"), *self.path.glob(".old-*")]:
            shutil.rmtree(left_over, ignore_errors=True)
        best = self._marked("best").get("checkpoint")
        names = self.names()
        for name in names[: names.index(written) + 1][: -self._keep]:
            if name != best:
                _remove(self.path / name)


def restore_dense(checkpoint: Checkpoint, root: tf.Module) -> None:
    """Restores the dense variables below `root` from a checkpoint.

    Raises:
      CheckpointError: If names, shapes or types differ; lists the differences.
    """
    variables = named_variables(root)
    saved = checkpoint.manifest["variables"]
    found = former_paths.find(variables, saved)
    wrong = []
    for path, variable in variables.items():
        here, there = _kind(variable), saved.get(found.paths[path])
        if there is None:
            wrong.append(f"the config has `{path}` {here}; the checkpoint lacks it")
        elif there != here:
            wrong.append(
                f"`{path}` is {there} in the checkpoint and {here} in the config"
            )
    known = {*found.paths.values(), *found.unneeded}
    wrong += [
        f"the checkpoint has `{path}` {there}; the config lacks it"
        for path, there in saved.items()
        if path not in known
    ]
    if wrong:
        raise CheckpointError(
            f"{checkpoint.path} does not fit the config:\n  "
            + "\n  ".join(wrong[:20])
            + ("" if len(wrong) <= 20 else f"\n  and {len(wrong) - 20} more")
            + "\nFix the config, or train in another `model_dir` (with "
            "`trainer.warm_start` to restore matching variables)."
        )
    _read(checkpoint, variables, found)


def restore_matching(
    checkpoint: Checkpoint, root: tf.Module, prefix: str = ""
) -> list[str]:
    """Restores the dense variables that match by path, shape and type.

    Args:
      checkpoint: The checkpoint.
      root: Holds the variables.
      prefix: Prefix of their paths; other variables stay unchanged.

    Returns:
      The paths that did not match.
    """
    variables = {
        path: variable
        for path, variable in named_variables(root).items()
        if path.startswith(prefix)
    }
    saved = checkpoint.manifest["variables"]
    found = former_paths.find(variables, saved)
    fitting = {
        path: variable
        for path, variable in variables.items()
        if saved.get(found.paths[path]) == _kind(variable)
    }
    _read(checkpoint, fitting, found)
    return sorted(set(variables) - set(fitting))


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file atomically."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _read(
    checkpoint: Checkpoint,
    variables: Mapping[str, tf.Variable],
    found: former_paths.Found,
) -> None:
    there = {found.paths[path]: variable for path, variable in variables.items()}
    file = str(checkpoint.path / "dense")
    try:
        tf.train.Checkpoint(**_slots(there)).read(file).expect_partial()
        for path in variables.keys() & found.biases.keys():
            bias = tf.Variable(tf.zeros_like(variables[path]))
            former = {found.biases[path]: bias}
            tf.train.Checkpoint(**_slots(former)).read(file).expect_partial()
            variables[path].assign_sub(bias)
    except (tf.errors.DataLossError, tf.errors.OutOfRangeError) as error:
        raise DamagedCheckpointError(
            f"{checkpoint.path / 'dense'} is damaged: {error.message}"
        ) from None
    finally:
        # TensorFlow reports damage by many errors, and misses some.
        _check_files(checkpoint, "dense.")


def _kind(variable: tf.Variable) -> list[Any]:
    """Returns shape and type, as manifests hold them."""
    return [list(variable.shape), variable.dtype.name]


def _slots(variables: Mapping[str, tf.Variable]) -> dict[str, tf.Variable]:
    """Returns attribute name for `tf.train.Checkpoint` -> variable."""
    return {path.replace("/", "."): variable for path, variable in variables.items()}


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
