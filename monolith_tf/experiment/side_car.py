"""The evaluator: scores the checkpoints of a cluster while it goes on training."""

import pathlib
import time

from absl import logging

from monolith_tf.config import schema
from monolith_tf.distribute import server
from monolith_tf.distribute.spec import ClusterSpec
from monolith_tf.distribute.task import Task
from monolith_tf.embedding import sealed
from monolith_tf.experiment import estimator as estimator_lib
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import spec as training_spec

_POLL_SECS = 1.0


def run(config: schema.ExperimentConfig, task: Task, spec: ClusterSpec) -> None:
    """Scores every new checkpoint until the chief is done and the last one is scored.

    Where checkpoints come faster than they are scored, those in between are passed
    over. Its metrics go to `<model_dir>/evaluator`.

    Args:
      config: The config.
      task: The evaluator's.
      spec: The cluster.

    Raises:
      ChiefGoneError: If there was no chief for `idle_timeout`.
      RosterError: If another process is the evaluator.
    """
    member = server.Member(task, config.model_dir, idle_timeout=spec.idle_timeout)
    try:
        member.signed_in.check_starts()
        scorer = _Scorer(config)
        while True:
            goes_on = member.follow()
            if not scorer.score_newest():
                if not goes_on:
                    break
                time.sleep(_POLL_SECS)
    except BaseException as error:
        member.signed_in.close(state="failed", message=str(error))
        raise
    member.signed_in.close(state="ended")


class _Scorer:
    def __init__(self, config: schema.ExperimentConfig) -> None:
        folder = pathlib.Path(config.model_dir) / "evaluator"
        self._estimator = estimator_lib.Estimator(config, record_dir=folder)
        self._checkpoints = self._estimator.checkpoints
        keep = config.trainer.keep_best
        self._watched = None if keep is None else self._estimator.metric(keep)
        self._scored: tuple[str, int] | None = None

    def score_newest(self) -> bool:
        """Scores the newest checkpoint; returns whether there was a new one."""
        names = self._checkpoints.names()
        if not names or self._identity(names[-1]) == self._scored:
            return False
        name = names[-1]
        identity = self._identity(name)
        try:
            with checkpoint_lib.hold(self._checkpoints.path / name):
                self._score(name, identity)
        except sealed.DamagedError as error:
            self._scored = identity
            logging.warning("%s is not scored: %s", name, error)
        except (checkpoint_lib.CheckpointError, OSError) as error:
            if identity == self._identity(name) is not None:
                raise
            logging.warning("%s was removed before it was scored: %s", name, error)
        return True

    def _score(self, name: str, identity: tuple[str, int] | None) -> None:
        path = self._checkpoints.path / name
        metrics = self._estimator.evaluate("eval", checkpoint=str(path))
        self._scored = identity
        logging.info(
            "eval | %s | %s",
            name,
            " | ".join(f"{key}: {value:.5f}" for key, value in metrics.items()),
        )
        self._judge(name, metrics)

    def _identity(self, name: str) -> tuple[str, int] | None:
        """Returns what tells a checkpoint from another of the same step, if it is."""
        manifest = self._checkpoints.path / name / "manifest.json"
        try:
            return name, manifest.stat().st_mtime_ns
        except OSError:
            return None

    def _judge(self, name: str, metrics: dict[str, float]) -> None:
        if self._watched is None:
            return
        value, best = (
            metrics[self._watched],
            self._checkpoints.best_value(self._watched),
        )
        sign = 1.0 if training_spec.rises(self._watched) else -1.0
        if best is None or sign * (value - best) > 0:
            self._checkpoints.mark_best(name, self._watched, value)
