"""The directory of a job's checkpoints: the newest, the best, and which are kept."""

import os
import pathlib
import re
import threading
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import TypeVar

import tensorflow as tf
from absl import logging

from monolith_tf import atomic
from monolith_tf.embedding.saved import sealed
from monolith_tf.embedding.saved.live_copy import LiveCopy
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import checkpoint_commit
from monolith_tf.training import checkpoint_links
from monolith_tf.training import checkpoint_lock
from monolith_tf.training import checkpoint_write
from monolith_tf.training import delta_parent
from monolith_tf.training.checkpoint import Checkpoint
from monolith_tf.training.checkpoint import CheckpointError

_NAME = re.compile(r"ckpt-(\d+)")

_Result = TypeVar("_Result")


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
        self._links = checkpoint_links.Links(self.path)
        self._parent = delta_parent.DeltaParent(self._links)
        self._copied: pathlib.Path | None = None  # Rows that are being written.
        self._pruning: threading.Thread | None = None

    def names(self) -> list[str]:
        """Returns the names of all checkpoints, damaged or not, oldest first.

        A folder without a manifest is none: it is being written, or was when the job
        was killed.
        """
        if not self.path.exists():
            return []
        found = (
            _NAME.fullmatch(entry.parent.name)
            for entry in self.path.glob(f"*/{checkpoint_lock.MANIFEST}")
        )
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
        opened: checkpoint_lib.Opened = {}
        for name in reversed(names):
            try:
                checkpoint = checkpoint_lib.open_checkpoint(
                    self.path / name, opened=opened
                )
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
            return checkpoint_lib.open_checkpoint(self.path / mark["checkpoint"])
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
        atomic.write_text(self.path / f"{kind}.json", sealed.seal(mark))

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
        as_delta: bool = False,
        copy: LiveCopy | None = None,
    ) -> Checkpoint:
        """Writes a checkpoint, which appears complete or not at all.

        Args:
          root: Holds the dense variables.
          store: The embedding store.
          step: The global step.
          state: Other values that the job needs to resume; JSON-serializable.
          config_yaml: The job's resolved config.
          as_delta: Whether to write only the rows that changed since the last
            checkpoint, if there is one and not too many deltas follow a whole one
            already. `start_deltas` must have been called.
          copy: From `begin_copy`, and written: only rows that changed since it began
            are written now.

        Returns:
          The checkpoint.
        """
        if self._pruning is not None:
            self._pruning.join()
        path = self.path / f"ckpt-{step:08d}"
        found = self._parent.of(path.name) if as_delta else None
        parent: Checkpoint | None = None
        since: dict[str, Any] = {}
        if found is not None:
            parent, since = found[0], {"since": found[1]}
        writing = checkpoint_write.Writing(path)
        if copy is not None:
            since = {"since": copy.mark, "with_all_counts": True}
            writing.add_layer(pathlib.Path(copy.directory))
        try:
            saved = writing.finish(
                root,
                store.save(writing.layer(), step=step, **since),
                step=step,
                state=state,
                config_yaml=config_yaml,
                parent=parent,
            )
        except BaseException:
            writing.abandon()
            raise
        if copy is not None:
            copy.mark.release()
            self._copied = None
        self._parent.saved(saved, store)
        self._pruning = None
        if copy is None:
            self._prune(path.name)
        else:  # Removing large files takes time too.
            self._pruning = threading.Thread(target=self._prune, args=(path.name,))
            self._pruning.start()
        return saved

    def begin_copy(self, store: EmbeddingStore, step: int) -> LiveCopy:
        """Begins to write all rows while steps run, for a later `save`.

        Args:
          store: The embedding store, which tracks updates.
          step: The global step.
        """
        folder = checkpoint_write.rows_folder(self.path)
        folder.mkdir(parents=True)
        self._copied = folder  # One that was begun before is given up.
        return store.copy(str(folder), step=step)

    def start_deltas(self, restored: Checkpoint | None, store: EmbeddingStore) -> None:
        """Prepares to write deltas; call it before the first step.

        Args:
          restored: The checkpoint that the store was restored from, which the first
            delta continues; None in a new job, whose first checkpoint is whole.
          store: The embedding store, which must track updates.
        """
        self._parent.start(restored, store)

    def _prune(self, written: str) -> None:
        """Removes old checkpoints, but none newer than the one just written.

        Newer ones are damaged, or belong to an abandoned history; they do not count.
        Those that a kept delta needs stay.
        """
        copied = () if self._copied is None else (self._copied,)
        checkpoint_commit.clear(self.path, keep=copied)
        names = self.names()
        until = names.index(written) + 1
        kept = {*names[:until][-self._keep :], *names[until:]}
        needed = self._links.needed(kept | {self._marked("best").get("checkpoint", "")})
        for name in names:
            if name not in needed:
                checkpoint_lock.remove(self.path / name)
