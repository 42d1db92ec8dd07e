"""Scores a split of the data with a checkpoint, every example once."""

import argparse
import json
import pathlib

from monolith_tf.cli import errors
from monolith_tf.cli import option_types
from monolith_tf.cli import train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the sub-command."""
    option_types.add_config(parser)
    parser.add_argument(
        "--split",
        choices=["train", "eval", "test"],
        default="test",
        help="which rows to score (default: test)",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="PATH",
        help="a checkpoint's folder (default: the best one, or else the newest)",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="also write the metrics to FILE, as JSON"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the sub-command and returns the exit code."""
    from monolith_tf import config as config_lib

    config = config_lib.load_config(arguments.config, arguments.overrides)
    from monolith_tf.cli import quiet

    quiet.import_tensorflow(verbose=arguments.verbose)
    from monolith_tf.experiment import estimator

    job = estimator.Estimator(config)
    metrics = job.evaluate(arguments.split, checkpoint=arguments.checkpoint)
    train.show_metrics(f"Evaluation on the {arguments.split} split", metrics)
    if arguments.output is not None:
        text = json.dumps(metrics, indent=2) + "\n"
        pathlib.Path(arguments.output).write_text(text, encoding="utf-8")
    return errors.DONE
