"""Where a run starts: at the beginning, or at the position of its checkpoint."""

from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

from absl import logging

from monolith_tf.config import schema
from monolith_tf.data.batch_source import BatchSource
from monolith_tf.data.stream.source import StreamSource
from monolith_tf.experiment import build
from monolith_tf.experiment import dropped_tables
from monolith_tf.experiment import resumed_position
from monolith_tf.experiment import resumed_settings
from monolith_tf.experiment import trained_rows
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import run as run_lib
from monolith_tf.training import spec as training_spec


class RunStart(NamedTuple):
    """The state in which a run starts.

    Attributes:
      progress: Its steps and its position in the data.
      window: What has been counted since the last log line.
      data: `Source.identity` of the train split.
      trained: What is held out of the files that the job trains on, now and before;
        see `trained_rows.of`.
    """

    progress: run_lib.Progress
    window: run_lib.Window
    data: Mapping[str, Any]
    trained: list[dict[str, Any]]


def new(source: BatchSource, config: schema.ExperimentConfig) -> RunStart:
    """Returns the start of a new job.

    Args:
      source: The train split.
      config: The job's config.
    """
    return RunStart(
        run_lib.Progress(batch_size=config.data.batch_size),
        run_lib.Window(),
        source.identity(),
        trained_rows.of(source.marks, config),
    )


def resumed(
    checkpoint: checkpoint_lib.Checkpoint,
    source: BatchSource,
    config: schema.ExperimentConfig,
    identity: build.JobIdentity,
) -> RunStart:
    """Returns the start from a checkpoint, and logs what changed since.

    Args:
      checkpoint: The checkpoint.
      source: The train split.
      config: The job's config.
      identity: The job's, with what the checkpoint kept.
    """
    here = new(source, config)
    before = trained_rows.of_checkpoint(checkpoint, source.marks)
    state = checkpoint.manifest["state"]
    progress = run_lib.Progress(**state["progress"])
    _count_examples(progress, state["progress"])
    logging.info("Resuming from %s.", checkpoint.path)
    dropped_tables.log(checkpoint, identity.optimizers)
    resumed_settings.log(checkpoint, config)
    resumed_position.resume(
        progress,
        state.get("data"),
        here.data,
        config.data.batch_size,
        taken_for=source.identity(progress.batch_size),
    )
    _choose_topic(progress, source.topic if isinstance(source, StreamSource) else None)
    return here._replace(
        progress=progress,
        window=run_lib.Window(**state["window"]),
        trained=trained_rows.joined(before, here.trained),
    )


def _choose_topic(progress: run_lib.Progress, topic: str | None) -> None:
    """Keeps the position in a former topic, and goes on where a topic was left."""
    left = progress.stream
    if left is None and topic is None:
        return
    if left is not None and left["topic"] == topic:
        return
    known = {**progress.former_streams}
    if left is not None:
        known[left["topic"]] = left
    progress.stream = None if topic is None else known.pop(topic, None)
    progress.former_streams = known
    if topic is not None:
        logging.info(
            "The checkpoint is of %s, and the job now reads topic %r: it starts %s.",
            "files" if left is None else f"topic {left['topic']!r}",
            topic,
            "as `data.stream.start` says"
            if progress.stream is None
            else f"where it left it, at offsets {progress.stream['offsets']}",
        )


def _count_examples(progress: run_lib.Progress, saved: Mapping[str, Any]) -> None:
    """Estimates the number of rows trained on for a checkpoint of 0.1.0."""
    if "examples" not in saved:
        progress.examples = progress.batch * progress.batch_size
        logging.warning(
            "The checkpoint does not say on how many rows it was trained; `examples` "
            "in metrics.jsonl continues from %d, an estimate from its batches.",
            progress.examples,
        )


def total_steps(
    trainer: training_spec.TrainerSpec,
    per_epoch: int | None,
    progress: run_lib.Progress,
) -> int | None:
    """Returns the step at which training ends; None if the data decide.

    Args:
      trainer: The job's `trainer`.
      per_epoch: Steps of an epoch; None if not known.
      progress: Where the run starts.
    """
    ends = [trainer.max_steps]
    if trainer.epochs is not None and per_epoch is not None:
        left = trainer.epochs * per_epoch - progress.batch
        ends.append(progress.step + max(0, left))
    return min((end for end in ends if end is not None), default=None)
