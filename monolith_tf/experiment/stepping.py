"""Makes the stepper of a run, in this process or on a cluster's workers."""

from monolith_tf.data.batch_source import BatchSource
from monolith_tf.data.stream.source import StreamSource
from monolith_tf.distribute import cluster as cluster_lib
from monolith_tf.experiment import sources as sources_lib
from monolith_tf.training import cluster_stepper
from monolith_tf.training import evaluation
from monolith_tf.training import event_windows
from monolith_tf.training import progressive
from monolith_tf.training import run as run_lib
from monolith_tf.training import spec as training_spec
from monolith_tf.training import stepper as stepper_lib
from monolith_tf.training import stream_cluster_stepper
from monolith_tf.training import stream_stepper


def stepper(
    run: run_lib.Run,
    source: BatchSource,
    evaluator: evaluation.Evaluator,
    sources: sources_lib.Sources,
    cluster: cluster_lib.Cluster | None,
    trainer: training_spec.TrainerSpec,
    windows: event_windows.EventWindows | None,
) -> stepper_lib.Stepper:
    """Returns the stepper, which starts at the run's position.

    If `trainer.mode` is progressive, it also becomes what evaluates in the run.

    Args:
      run: The run.
      source: The train split.
      evaluator: Scores the batches of a progressive run.
      sources: Have the description of what a cluster's workers read.
      cluster: Where steps run; None for this process.
      trainer: The job's `trainer`.
      windows: Score the batches of a progressive run by event time; None if they are
        scored by steps.
    """
    score = None
    if trainer.mode == "progressive":
        score = progressive.Scoring(run.step, evaluator, windows)
        run.evaluate = score.score
    if cluster is not None and isinstance(source, StreamSource):
        return stream_cluster_stepper.StreamClusterStepper(
            run.step,
            cluster,
            sources.span_feed,
            source,
            run,
            trainer.steps_per_loop,
            evaluator,
            score,
        )
    if cluster is not None:
        return cluster_stepper.ClusterStepper(
            run.step, cluster, sources.feed, run, trainer.steps_per_loop
        )
    if isinstance(source, StreamSource):
        return stream_stepper.StreamStepper(source, run, score)
    if run.steps_per_epoch is None:
        dataset = source.dataset(0, run.progress.batch, num_epochs=trainer.epochs)
    else:
        epoch, batch, cut = run.place(run.progress.batch)
        dataset = source.dataset(
            epoch, batch, num_epochs=None, string_codes=True, cut=cut
        )
    if score is not None:
        return progressive.ProgressiveStepper(run.step, dataset, score)
    return stepper_lib.LocalStepper(run.step, dataset)


def event_time(
    source: BatchSource,
    evaluator: evaluation.Evaluator,
    trainer: training_spec.TrainerSpec,
) -> event_windows.EventWindows | None:
    """Returns the windows of a progressive run on a topic.

    Args:
      source: The train split.
      evaluator: Has the metrics.
      trainer: The job's `trainer`.

    Returns:
      The windows; None if the run is none such, or is scored by steps.
    """
    is_stream = isinstance(source, StreamSource)
    if not is_stream or trainer.mode != "progressive" or trainer.eval_every_steps:
        return None
    return event_windows.EventWindows(
        evaluator,
        trainer.eval_window_secs or event_windows.DEFAULT_SECS,
        trainer.eval_lateness_secs,
    )
