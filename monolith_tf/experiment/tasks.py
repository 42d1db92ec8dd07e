"""Runs one task of a cluster; all tasks receive the same config."""

from absl import logging

from monolith_tf.config import schema
from monolith_tf.data import feed as feed_lib
from monolith_tf.data import source as source_lib
from monolith_tf.distribute import cluster as cluster_lib
from monolith_tf.distribute import exits
from monolith_tf.distribute import server
from monolith_tf.distribute import task as task_lib
from monolith_tf.distribute.spec import ClusterSpec
from monolith_tf.distribute.task import Task
from monolith_tf.experiment import build
from monolith_tf.experiment import estimator
from monolith_tf.experiment import job_checkpoints
from monolith_tf.experiment import side_car
from monolith_tf.experiment import watcher as watcher_lib
from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping


def train(
    config: schema.ExperimentConfig,
    task: Task,
    *,
    watcher: watcher_lib.Watcher | None = None,
) -> dict[str, float]:
    """Runs one task until the job is done.

    Args:
      config: The config, with a `cluster`.
      task: Which task this process is.
      watcher: Receives events, in the chief.

    Returns:
      In the chief, the last evaluation's metrics.
    """
    spec = check(config, task)
    if task.kind == "chief":
        return _lead(config, task, spec, watcher)
    if task.kind == "evaluator":
        side_car.run(config, task, spec)
    elif task.kind == "worker":
        _work(config, task, spec)
    else:
        server.serve(task, config.model_dir, spec)
    return {}


def check(config: schema.ExperimentConfig, task: Task) -> ClusterSpec:
    """Checks that a config can run as a task; returns its cluster.

    Raises:
      TaskError: If config and `TF_CONFIG` do not fit together.
      ValueError: If the config needs something that a cluster cannot do.
    """
    if config.cluster is None:
        raise task_lib.TaskError(
            f"`{task_lib.VARIABLE}` makes this process {task.name} of a cluster, but "
            "the config has no `cluster`. Add one, or unset the variable to train in "
            "one process."
        )
    spec = config.cluster
    task_lib.check_counts(task, ps=spec.ps, workers=spec.workers)
    if task.kind == "evaluator" and not spec.evaluator:
        raise task_lib.TaskError(
            f"`{task_lib.VARIABLE}` makes this process an evaluator, but the config "
            "has none. Set `cluster.evaluator` to true."
        )
    if config.data.input_fn is not None:
        raise ValueError(
            "`data.input_fn` returns one stream of batches, which cannot be split among"
            f" workers. Received: input_fn={config.data.input_fn!r}. Use files or your "
            "own `data.reader`, or train in one process."
        )
    for key in ("early_stop", "reduce_on_plateau"):
        if spec.evaluator and getattr(config.trainer, key) is not None:
            raise ValueError(
                f"`trainer.{key}` needs evaluations between training phases. Received: "
                "`cluster.evaluator` true, which scores checkpoints during training. "
                "Set it to false, so that the workers evaluate."
            )
    return spec


def _lead(
    config: schema.ExperimentConfig,
    task: Task,
    spec: ClusterSpec,
    watcher: watcher_lib.Watcher | None,
) -> dict[str, float]:
    reported: JsonDict = {}

    def explain(lost: str) -> str:
        return (
            f"{lost} Its rows and variables are lost. Start the job again, parameter "
            f"servers and chief: {_repeats(config, reported)}"
        )

    cluster = cluster_lib.Cluster(
        task, spec, config.model_dir, reported=reported, explain=explain
    )
    try:
        with cluster.watched():
            job = estimator.Estimator(config, watcher=watcher, cluster=cluster)
            metrics = job.train()
    except exits.ParameterServerLostError as error:
        raise exits.ParameterServerLostError(explain(str(error))) from error
    except exits.StuckError as error:
        logging.warning("%s The chief restarts: %s", error, _repeats(config, reported))
    else:
        if not cluster.regroups:
            return metrics
        logging.info(
            "The checkpoint is written; the chief restarts, since %s.",
            cluster.change,
        )
    server.restart()


def _repeats(config: schema.ExperimentConfig, reported: JsonMapping) -> str:
    """Returns from which step a new chief resumes, and how much it repeats."""
    found = job_checkpoints.of(config).latest()
    step = 0 if found is None else found.step
    rows = max(0, int(reported.get("step", 0)) - step) * config.data.batch_size
    return (
        f"it resumes from step {step}, and trains again on the about {rows} rows "
        "since then."
    )


def _work(config: schema.ExperimentConfig, task: Task, spec: ClusterSpec) -> None:
    job = build.Job(config)
    columns = job.columns
    feeder = feed_lib.Feeder(
        lambda split: source_lib.open_split(
            config.data, split, columns, seed=config.seed
        ),
        columns,
        config.data.batch_size,
        job.span_feeder(),
    )
    server.serve(
        task,
        config.model_dir,
        spec,
        latest=lambda: {"examples": feeder.examples, "message": feeder.failure},
        feed=feeder.tokens,
        examples=0,
    )
