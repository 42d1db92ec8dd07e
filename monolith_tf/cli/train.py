"""Trains the model that a config describes, or resumes a job that was stopped.

Checkpoints, metrics.jsonl, TensorBoard summaries and the resolved config go to the
config's model_dir. Ctrl-C writes a checkpoint and stops; the same command resumes. If
TF_CONFIG is set, the process runs the cluster task that it names.
"""

import argparse
import os
import sys
from collections.abc import Mapping

from monolith_tf.cli import check
from monolith_tf.cli import errors
from monolith_tf.cli import option_types
from monolith_tf.cli import placement
from monolith_tf.cli import progress
from monolith_tf.cli import tables
from monolith_tf.distribute import heartbeat
from monolith_tf.distribute import task as task_lib


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the sub-command."""
    option_types.add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the sub-command and returns the exit code."""
    from monolith_tf import config as config_lib

    task = task_lib.Task.from_env(os.environ)
    heartbeat.beat_into_file()
    config = config_lib.load_config(arguments.config, arguments.overrides)
    check.show_features(config)
    placement.show(config)
    from monolith_tf.cli import quiet

    quiet.import_tensorflow(verbose=arguments.verbose)
    from monolith_tf.cli import watcher
    from monolith_tf.experiment import estimator
    from monolith_tf.experiment import tasks

    view = progress.create()
    progress.attach_log(view, verbose=arguments.verbose)
    training = watcher.TrainingView(view)
    try:
        if task is None:
            metrics = estimator.Estimator(config, watcher=training).train()
        else:
            metrics = tasks.train(config, task, watcher=training)
    finally:
        view.end()
        lines = progress.Lines(sys.stderr)
        progress.attach_log(lines, verbose=arguments.verbose)
    if task is not None and task.kind != "chief":
        return errors.DONE
    training.show_result()
    if metrics:
        show_metrics("Last evaluation", metrics)
    sys.stdout.write(f"Trained; checkpoints and metrics are in {config.model_dir}.\n")
    return errors.DONE


def show_metrics(title: str, metrics: Mapping[str, float]) -> None:
    """Prints metrics: one line per head, then those without a head."""
    heads: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        head, _, metric = name.rpartition("/")
        heads.setdefault(head, {})[metric] = value
    alone = heads.pop("", {})
    if heads:
        names = list(dict.fromkeys(name for head in heads.values() for name in head))
        rows = [
            [head, *(values.get(name) for name in names)]
            for head, values in heads.items()
        ]
        tables.show(title, ["task", *names], rows)
    for name, value in alone.items():
        sys.stdout.write(f"{name}: {value:.5f}\n")
