"""Judges: what follows from the metrics of an evaluation."""

import math
from collections.abc import Mapping

from absl import logging

from monolith_tf.training import evaluation_set
from monolith_tf.training import run as run_lib
from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping


class Judge:
    """Receives every evaluation's metrics."""

    def judge(self, run: run_lib.Run, metrics: Mapping[str, float]) -> None:
        """Called after each evaluation."""
        raise NotImplementedError(f"`{type(self).__name__}` defines no `judge`.")


class Watch(Judge):
    """Follows the best value of one metric, and saves it in every checkpoint."""

    def __init__(self, metric: str, *, rises: bool, min_delta: float = 0.0) -> None:
        """Makes the watch.

        Args:
          metric: `<head>/<metric>`, or `loss`.
          rises: Whether a greater value is better.
          min_delta: Least difference that counts as better.
        """
        self.metric = metric
        self._sign = 1.0 if rises else -1.0
        self._min_delta = min_delta

    def judge(self, run: run_lib.Run, metrics: Mapping[str, float]) -> None:
        """See base class."""
        if self.metric not in metrics:
            raise ValueError(
                f"There is no metric `{self.metric}` to watch. "
                f"Received: {', '.join(metrics)}."
            )
        value = metrics[self.metric]
        record = self._record(run)
        best = record["value"]
        if math.isnan(best) or self._sign * (value - best) > self._min_delta:
            record.update(value=value, step=run.progress.step, waited=0)
            self.better(run, value)
        else:
            record["waited"] += 1
            self.not_better(run, record)

    def _record(self, run: run_lib.Run) -> JsonDict:
        """Returns the best value so far, or a new record where it is of another metric.

        A record of 0.1.0, which does not say its metric, counts as one of the same.
        """
        name, best = type(self).__name__, run.progress.best
        of = {"metric": self.metric, "rises": self._sign > 0}
        before = best.get(name, of)
        if any(before.get(key, value) != value for key, value in of.items()):
            logging.warning(
                "%s goes by `%s` now, and went by %s: the best value starts over.",
                name,
                self.metric,
                _described(before),
            )
            del best[name]
        return best.setdefault(name, {"value": math.nan, "step": 0, "waited": 0, **of})

    def better(self, run: run_lib.Run, value: float) -> None:
        """Called when the metric improved."""

    def not_better(self, run: run_lib.Run, record: Mapping[str, float]) -> None:
        """Called when it did not; `record` has the best value and its step."""


class KeepBest(Watch):
    """Writes a checkpoint when the metric improves, and keeps it."""

    def better(self, run: run_lib.Run, value: float) -> None:
        """See base class."""
        run.want_checkpoint(
            lambda saved: run.checkpoints.mark_best(
                saved.path.name, self.metric, value, run.progress.evaluated_on
            )
        )


class EarlyStop(Watch):
    """Stops the run when the metric has not improved for a while."""

    def __init__(
        self, metric: str, *, rises: bool, patience: int, min_delta: float = 0.0
    ) -> None:
        """Makes the judge; `patience` counts evaluations, others as in `Watch`."""
        super().__init__(metric, rises=rises, min_delta=min_delta)
        self._patience = patience

    def not_better(self, run: run_lib.Run, record: Mapping[str, float]) -> None:
        """See base class."""
        if record["waited"] >= self._patience:
            run.stop(
                f"early: `{self.metric}` did not improve on {record['value']:.5f} in "
                f"{record['waited']:.0f} evaluations"
            )


class ReduceOnPlateau(Watch):
    """Lowers all learning rates when the metric has not improved for a while."""

    def __init__(
        self,
        metric: str,
        *,
        rises: bool,
        patience: int,
        factor: float,
        min_delta: float = 0.0,
    ) -> None:
        """Makes the judge; `factor` multiplies the rates, others as in `EarlyStop`."""
        super().__init__(metric, rises=rises, min_delta=min_delta)
        self._patience = patience
        self._factor = factor

    def not_better(self, run: run_lib.Run, record: Mapping[str, float]) -> None:
        """See base class."""
        scale = run.step.rate_scale
        if scale is not None and record["waited"] % self._patience == 0:
            scale.assign(self._factor * scale)
            logging.info("Learning rates are now scaled by %g.", scale.numpy())


def note_evaluated(run: run_lib.Run) -> None:
    """Gives up best values that are of other rows than the present evaluation."""
    progress, here = run.progress, run.evaluated_on()
    changed = evaluation_set.changes(progress.evaluated_on, here)
    if changed and progress.best:
        logging.warning(
            "Evaluations are of other data than before, as %s changed: the best value "
            "starts over. It was %s.",
            ", ".join(
                key if key == evaluation_set.FILES else f"`{key}`" for key in changed
            ),
            " and ".join(dict.fromkeys(map(_described, progress.best.values()))),
        )
        progress.best.clear()
    progress.evaluated_on = here


def _described(record: JsonMapping) -> str:
    metric = f"`{record['metric']}` " if "metric" in record else ""
    return f"{metric}{record['value']:.5f} of step {record['step']}"
