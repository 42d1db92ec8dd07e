"""Makes the actions that a job runs between steps from its config."""

from collections.abc import Callable
from collections.abc import Mapping
from typing import TYPE_CHECKING

from monolith_tf import imports
from monolith_tf.config import model_params
from monolith_tf.config import schema
from monolith_tf.data.stream.source import StreamSource
from monolith_tf.experiment import checkpointing
from monolith_tf.experiment import exports
from monolith_tf.experiment import watcher as watcher_lib
from monolith_tf.training import actions as actions_lib
from monolith_tf.training import architecture
from monolith_tf.training import architecture_log
from monolith_tf.training import data_log
from monolith_tf.training import event_windows
from monolith_tf.training import judges as judges_lib
from monolith_tf.training import run as run_lib
from monolith_tf.training import spec as training_spec
from monolith_tf.training import stream_log
from monolith_tf.training import table_log

if TYPE_CHECKING:
    from monolith_tf.experiment import live_publishing


def between_steps(
    config: schema.ExperimentConfig,
    run: run_lib.Run,
    watcher: watcher_lib.Watcher,
    *,
    export: Callable[[run_lib.Run], object],
    counts: Callable[[], Mapping[str, int]],
    stream: StreamSource | None,
    windows: event_windows.EventWindows | None,
    has_evaluator: bool,
    publishing: "live_publishing.LivePublishing | None" = None,
) -> list[actions_lib.Action]:
    """Returns the actions between steps, in the order in which they run.

    Args:
      config: The job's config.
      run: The run.
      watcher: Receives log lines and evaluations.
      export: Exports the current values.
      counts: Returns the readers' counts.
      stream: The topic of the train split, if it is one.
      windows: Windows of event time that score the run, if there are any.
      has_evaluator: Whether an evaluator task of the cluster evaluates instead.
      publishing: What publishes during the run, if anything does.
    """
    trainer = config.trainer
    actions: list[actions_lib.Action] = [
        actions_lib.Log(trainer.log_every_steps, watcher.line),
        table_log.TableLog(trainer.log_every_steps),
    ]
    if stream is not None:
        actions.append(stream_log.StreamLog(trainer.log_every_steps, stream))
    if publishing is not None:
        actions.append(publishing.log(trainer.log_every_steps))
    if architecture.searching_layers(run.step.network.model):
        actions.append(architecture_log.ArchitectureLog(trainer.log_every_steps))
    evaluations: list[int | actions_lib.Interval] = []
    if trainer.eval_every_steps is not None:
        evaluations.append(trainer.eval_every_steps)
    if trainer.eval_every_epochs is not None:
        if run.steps_per_epoch is None:
            raise ValueError(
                "`trainer.eval_every_epochs` needs the number of batches of an "
                "epoch, which the dataset of `data.input_fn` does not know. Use "
                "`eval_every_steps`, or `tf.data.experimental.assert_cardinality`."
            )
        evaluations.append(
            actions_lib.Interval(
                trainer.eval_every_epochs * run.steps_per_epoch,
                since=run.progress.step - run.progress.batch,
            )
        )
    if windows is not None:
        actions.append(
            actions_lib.EvaluateWindows(
                windows,
                _judges(config, watcher),
                is_seldom=config.cluster is not None,
            )
        )
    if evaluations and not has_evaluator:
        # A progressive run has already scored its batches.
        is_quick = trainer.mode == "progressive"
        actions.append(
            actions_lib.Evaluate(
                evaluations, _judges(config, watcher), is_quick=is_quick
            )
        )
    for name in trainer.actions:
        actions.append(imports.load_name(name, "trainer.actions")())
    if config.export.every_steps is not None:
        every = config.export.every_steps
        actions.append(exports.Export(every, export))
    # After evaluations, which also read data.
    actions.append(data_log.DataLog(trainer.log_every_steps, counts))
    # An evaluator task scores checkpoints.
    others = evaluations if has_evaluator else []
    actions.append(checkpointing.action(config, others, _event_time(stream)))
    return actions


def _event_time(stream: StreamSource | None) -> Callable[[], float]:
    """Returns what gives the time of a topic's newest message, in seconds."""

    def newest() -> float:
        state = None if stream is None else stream.state()
        return 0.0 if state is None else state.newest / 1000

    return newest


def _judges(
    config: schema.ExperimentConfig, watcher: watcher_lib.Watcher
) -> list[judges_lib.Judge]:
    trainer = config.trainer
    judges: list[judges_lib.Judge] = [watcher_lib.ReportEvaluations(watcher)]
    if trainer.keep_best is not None:
        watched = metric(config, trainer.keep_best)
        judges.append(judges_lib.KeepBest(watched, rises=training_spec.rises(watched)))
    plateau = trainer.reduce_on_plateau
    if plateau is not None:
        judges.append(
            judges_lib.ReduceOnPlateau(
                metric(config, plateau.metric),
                rises=plateau.rises,
                patience=plateau.patience,
                factor=plateau.factor,
                min_delta=plateau.min_delta,
            )
        )
    if trainer.early_stop is not None:
        stop = trainer.early_stop
        judges.append(
            judges_lib.EarlyStop(
                metric(config, stop.metric),
                rises=stop.rises,
                patience=stop.patience,
                min_delta=stop.min_delta,
            )
        )
    return judges


def metric(config: schema.ExperimentConfig, name: str) -> str:
    """Returns a metric's full name; adds the head to a name without one."""
    if "/" in name or name == "loss":
        return name
    heads = model_params.heads(config)
    return f"{heads[0] if heads else config.labels[0].name}/{name}"
