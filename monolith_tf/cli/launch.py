"""Runs a job on a cluster: on this machine, or as manifests for Kubernetes.

On this machine it starts a chief, parameter servers, workers and, if requested, an
evaluator, and restarts tasks that die. Every task logs to <model_dir>/logs/<task>.log.
Ctrl-C writes a checkpoint and ends all tasks; the same command resumes the job. With
--target kubernetes it prints manifests for `kubectl apply -f -`.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from monolith_tf.cli import errors
from monolith_tf.cli import option_types
from monolith_tf.cli import progress

if TYPE_CHECKING:
    from monolith_tf.config import schema
    from monolith_tf.distribute.spec import ClusterSpec

_TASKS = option_types.whole(1, 10_000)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the sub-command."""
    option_types.add_config(parser)
    parser.add_argument(
        "--ps",
        type=_TASKS,
        metavar="N",
        help="number of parameter servers; replaces cluster.ps",
    )
    parser.add_argument(
        "--workers",
        type=_TASKS,
        metavar="N",
        help="number of workers; replaces cluster.workers",
    )
    parser.add_argument(
        "--evaluator",
        action="store_true",
        help="add a task that scores every checkpoint, as cluster.evaluator does",
    )
    parser.add_argument(
        "--max-restarts",
        type=option_types.whole(0),
        default=3,
        metavar="N",
        help="restarts in a row allowed for a task (default: 3)",
    )
    parser.add_argument(
        "--target",
        choices=["local", "kubernetes"],
        default="local",
        help="where to run (default: local, this machine)",
    )
    parser.add_argument(
        "--image", metavar="IMAGE", help="kubernetes: an image with monolith_tf"
    )
    parser.add_argument(
        "--flavor",
        choices=["plain", "tfjob"],
        help="kubernetes: StatefulSets and Jobs (default), or a TFJob of Kubeflow",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the sub-command and returns the exit code."""
    overrides = [*arguments.overrides, *_cluster_overrides(arguments)]
    if arguments.target == "kubernetes":
        return _print_manifests(arguments, overrides)
    for name in ("image", "flavor"):
        if getattr(arguments, name) is not None:
            raise errors.UsageError(f"--{name} needs --target kubernetes.")
    return _run_here(arguments, overrides)


def _run_here(arguments: argparse.Namespace, overrides: list[str]) -> int:
    import pathlib

    from monolith_tf import config as config_lib
    from monolith_tf.cli import cluster_view
    from monolith_tf.launch import local
    from monolith_tf.launch import status as status_lib

    config = config_lib.load_config(arguments.config, overrides)
    cluster = _cluster(config)
    model_dir = pathlib.Path(config.model_dir)
    status = status_lib.Status(model_dir, batch_size=config.data.batch_size)
    view = cluster_view.create(
        status,
        [
            status_lib.MetricsTail(folder / "metrics.jsonl")
            for folder in (model_dir, model_dir / "evaluator")
        ],
    )
    progress.attach_log(view, verbose=arguments.verbose)
    command = [sys.executable, "-m", "monolith_tf", "train", arguments.config]
    passed_on = [f"--{o}" for o in ("verbose", "debug") if getattr(arguments, o)]
    job = local.LocalCluster(
        local.local_tasks(
            ps=cluster.ps, workers=cluster.workers, evaluator=cluster.evaluator
        ),
        [*command, *overrides, *passed_on],
        model_dir,
        max_restarts=arguments.max_restarts,
        hang_timeout=cluster.hang_timeout,
        watch=view.watch,
    )
    view.write(f"The logs of all tasks are in {job.logs}.")
    try:
        outcome = job.run()
    finally:
        view.end()
        progress.attach_log(progress.Lines(sys.stderr), verbose=arguments.verbose)
    if outcome.culprit is not None:
        log = job.logs / f"{outcome.culprit}.log"
        tail = "".join(f"  {line}\n" for line in job.log_tail(outcome.culprit))
        sys.stderr.write(f"The last lines of {log}:\n{tail}error: ")
    if outcome.code != errors.DONE:
        sys.stderr.write(f"{outcome.message}\n")
        return outcome.code
    sys.stdout.write(f"Trained; checkpoints and metrics are in {model_dir}.\n")
    return errors.DONE


def _print_manifests(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from monolith_tf import config as config_lib
    from monolith_tf import launch

    config = config_lib.load_config(arguments.config, overrides, data="ignored")
    _cluster(config)
    if arguments.flavor == "tfjob":
        manifests = launch.tfjob_manifests(config, image=arguments.image)
    else:
        manifests = launch.kubernetes_manifests(
            config, image=arguments.image, max_restarts=arguments.max_restarts
        )
    sys.stdout.write(launch.to_yaml(manifests))
    return errors.DONE


def _cluster_overrides(arguments: argparse.Namespace) -> list[str]:
    given = []
    for option, key in (("ps", "ps"), ("workers", "workers")):
        number = getattr(arguments, option)
        if number is not None:
            given.append(f"cluster.{key}={number}")
    if arguments.evaluator:
        given.append("cluster.evaluator=true")
    return given


def _cluster(config: "schema.ExperimentConfig") -> "ClusterSpec":
    if config.cluster is None:
        raise errors.UsageError(
            "CONFIG has no `cluster`. Give its size, such as --ps 1 --workers 2."
        )
    return config.cluster
