"""When a job writes whole checkpoints and deltas, from its config."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import NamedTuple

from monolith_tf.config import schema
from monolith_tf.training import actions as actions_lib
from monolith_tf.training import checkpoint_spec
from monolith_tf.training import due as due_lib

_ON_A_TOPIC = checkpoint_spec.CheckpointSpec(full_every="1h", delta_every="1m")


class _Every(NamedTuple):
    """An interval, of which at most one is not None."""

    steps: int | None = None
    secs: float | None = None
    event_secs: float | None = None


def spec(config: schema.ExperimentConfig) -> checkpoint_spec.CheckpointSpec:
    """Returns the intervals of a job, with the defaults of a job on a topic."""
    trainer = config.trainer
    is_set = (
        trainer.checkpoint != checkpoint_spec.CheckpointSpec()
        or trainer.checkpoint_every_steps is not None
        or trainer.checkpoint_every_secs is not None
    )
    is_default = config.data.stream is not None and not is_set
    return _ON_A_TOPIC if is_default else trainer.checkpoint


def writes_deltas(config: schema.ExperimentConfig) -> bool:
    """Returns whether a job writes deltas, for which its store tracks updates."""
    return spec(config).delta_every is not None


def action(
    config: schema.ExperimentConfig,
    others: Sequence[int | due_lib.Interval],
    event_time: Callable[[], float],
) -> actions_lib.SaveCheckpoint:
    """Returns the action that writes a job's checkpoints.

    Args:
      config: The job's config.
      others: Further intervals of steps between whole checkpoints.
      event_time: Returns the time of the newest event in seconds; 0 if not known.
    """
    trainer, intervals = config.trainer, spec(config)
    whole, delta = _every(intervals.full_every), _every(intervals.delta_every)
    steps = (whole.steps, trainer.checkpoint_every_steps)
    deltas: due_lib.Due | None = None
    if intervals.delta_every is not None:
        deltas = due_lib.Due(
            [] if delta.steps is None else [due_lib.Interval(delta.steps)],
            delta.secs,
            delta.event_secs,
            event_time,
        )
    return actions_lib.SaveCheckpoint(
        [*(every for every in steps if every is not None), *others],
        trainer.checkpoint_every_secs if whole.secs is None else whole.secs,
        every_event_secs=whole.event_secs,
        deltas=deltas,
        event_time=event_time,
    )


def _every(value: checkpoint_spec.Every | None) -> _Every:
    if isinstance(value, checkpoint_spec.EventInterval):
        return _Every(event_secs=checkpoint_spec.seconds("event", value.event))
    if isinstance(value, str):
        return _Every(secs=checkpoint_spec.seconds("every", value))
    return _Every(steps=value)
