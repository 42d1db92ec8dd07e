"""The evaluator: scores the checkpoints of a cluster while it trains."""

import json
import pathlib
import time
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from absl import logging

from monolith_tf import atomic
from monolith_tf.config import schema
from monolith_tf.distribute import server
from monolith_tf.distribute.spec import ClusterSpec
from monolith_tf.distribute.task import Task
from monolith_tf.embedding.saved import sealed
from monolith_tf.experiment import estimator as estimator_lib
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import checkpoint_lock
from monolith_tf.training import evaluation_set
from monolith_tf.training import spec as training_spec

_POLL_SECS = 1.0


def run(config: schema.ExperimentConfig, task: Task, spec: ClusterSpec) -> None:
    """Scores every checkpoint, oldest first, until the chief is done and none is left.

    Its metrics go to `<model_dir>/evaluator`. There, `scored.json` lists the scored
    checkpoints, so a restarted evaluator continues. If checkpoints are written faster
    than they are scored, some may be removed unscored; the log warns of that.

    Args:
      config: The config.
      task: The evaluator's task.
      spec: The cluster.

    Raises:
      ChiefGoneError: If there was no chief for `idle_timeout`.
      RosterError: If another process is the evaluator.
    """
    member = server.Member(task, config.model_dir, idle_timeout=spec.idle_timeout)
    try:
        member.signed_in.check_starts()
        scorer = Scorer(config)
        while True:
            goes_on = member.follow()
            if not scorer.score_next():
                if not goes_on:
                    break
                time.sleep(_POLL_SECS)
    except BaseException as error:
        member.signed_in.close(state="failed", message=str(error))
        raise
    member.signed_in.close(state="ended")


class Scorer:
    """Scores checkpoints one by one.

    Args:
      config: The config of the job that writes them.
    """

    def __init__(self, config: schema.ExperimentConfig) -> None:
        folder = pathlib.Path(config.model_dir) / "evaluator"
        self._estimator = estimator_lib.Estimator(config, record_dir=folder)
        self._checkpoints = self._estimator.checkpoints
        keep = config.trainer.keep_best
        self._watched = None if keep is None else self._estimator.metric(keep)
        self._keep = config.trainer.keep_checkpoints
        self._file = folder / "scored.json"
        self._scored = _read(self._file)  # Name -> `_identity`.
        self._waiting: set[str] = set()
        if self._keep == 1:
            logging.warning(
                "`trainer.keep_checkpoints` is 1: a checkpoint is not scored if the "
                "next one is written before the evaluator starts with it."
            )

    def score_next(self) -> bool:
        """Scores the oldest unscored checkpoint; returns whether there was one."""
        present = {name: self._identity(name) for name in self._checkpoints.names()}
        waiting = [
            name
            for name, identity in present.items()
            if identity is not None and self._scored.get(name) != identity
        ]
        self._warn_of_missed(present, waiting)
        if not waiting:
            return False
        name, identity = waiting[0], present[waiting[0]]
        try:
            with checkpoint_lock.held(self._checkpoints.path / name):
                self._score(name)
        except sealed.DamagedError as error:
            logging.warning("%s is not scored: %s", name, error)
        except (checkpoint_lib.CheckpointError, OSError) as error:
            if identity == self._identity(name):
                raise
            logging.warning("%s was removed before it was scored: %s", name, error)
        self._waiting.discard(name)
        self._note(
            {n: i for n, i in present.items() if n not in waiting}, name, identity
        )
        return True

    def _warn_of_missed(
        self, present: Mapping[str, int | None], waiting: Sequence[str]
    ) -> None:
        """Warns of checkpoints that were, or may have been, removed unscored."""
        gone = sorted(self._waiting - set(present))
        if gone:
            logging.warning(
                "%s: removed before it was scored. Raise `trainer.keep_checkpoints` to "
                "give the evaluator more time.",
                ", ".join(gone),
            )
        # The newest `keep` checkpoints exist. If one of them is scored, every later
        # one is still there; if all are new, others may have been removed before.
        new = set(waiting) - self._waiting
        if self._scored and len(new) >= self._keep > 1:
            logging.warning(
                "The evaluator is behind: %d new checkpoints wait to be scored, and "
                "others may have been removed before. Raise "
                "`trainer.keep_checkpoints` to give it more time.",
                len(new),
            )
        self._waiting = set(waiting)

    def _note(
        self, others: Mapping[str, int | None], name: str, identity: int | None
    ) -> None:
        """Saves that a checkpoint is scored, also for a later start."""
        scored = {n: i for n, i in others.items() if i is not None}
        if identity is not None:
            scored[name] = identity
        self._scored = scored
        self._file.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(self._file, json.dumps(scored))

    def _score(self, name: str) -> None:
        path = self._checkpoints.path / name
        metrics = self._estimator.evaluate("eval", checkpoint=str(path))
        logging.info(
            "eval | %s | %s",
            name,
            " | ".join(f"{key}: {value:.5f}" for key, value in metrics.items()),
        )
        self._judge(name, metrics)

    def _identity(self, name: str) -> int | None:
        """Returns what distinguishes checkpoints of one step; None if it is gone."""
        manifest = self._checkpoints.path / name / "manifest.json"
        try:
            return manifest.stat().st_mtime_ns
        except OSError:
            return None

    def _judge(self, name: str, metrics: dict[str, float]) -> None:
        if self._watched is None:
            return
        value, here = metrics[self._watched], self._estimator.evaluated_on()
        best = self._best(here)
        sign = 1.0 if training_spec.rises(self._watched) else -1.0
        if best is None or sign * (value - best) > 0:
            self._checkpoints.mark_best(name, self._watched, value, here)

    def _best(self, here: Mapping[str, Any]) -> float | None:
        """Returns the best value so far, if it is of the same metric and data."""
        mark = self._checkpoints.best_mark()
        if mark.get("metric") != self._watched:
            return None
        changed = evaluation_set.changes(mark.get("evaluated_on"), here)
        if changed:
            logging.warning(
                "Evaluations are of other data than before, as %s changed: the best "
                "value starts over. It was %.5f, of %s.",
                ", ".join(changed),
                mark["value"],
                mark["checkpoint"],
            )
            return None
        return mark["value"]


def _read(path: pathlib.Path) -> dict[str, int]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return {str(n): int(i) for n, i in found.items()} if isinstance(found, dict) else {}
