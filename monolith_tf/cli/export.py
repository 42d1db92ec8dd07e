"""Exports a checkpoint as a SavedModel that a stock TF Serving loads."""

import argparse
import sys

from monolith_tf.cli import errors
from monolith_tf.cli import option_types
from monolith_tf.cli import tables


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the sub-command."""
    option_types.add_config(parser)
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="the folder of versions (default: the config's export.directory, or else "
        "MODEL_DIR/export)",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="PATH",
        help="a checkpoint's folder (default: the one that the config's "
        "export.checkpoint selects)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the sub-command and returns the exit code."""
    from monolith_tf import config as config_lib

    config = config_lib.load_config(arguments.config, arguments.overrides)
    from monolith_tf.cli import quiet

    quiet.import_tensorflow(verbose=arguments.verbose)
    from monolith_tf.experiment import estimator
    from monolith_tf.export import metadata

    job = estimator.Estimator(config)
    path = job.export_saved_model(arguments.output, checkpoint=arguments.checkpoint)
    found = metadata.read(path)
    sys.stdout.write(f"SavedModel: {path}\nsize: {tables.size(found['bytes'])}\n")
    dropped = sum(group["dropped_rows"] for group in found["groups"])
    if dropped:
        sys.stdout.write(f"rows of zeros left out: {dropped:,}\n")
    if found["largest_difference"] is not None:
        sys.stdout.write(
            "largest difference of a prediction on real rows: "
            f"{found['largest_difference']:.2g}\n"
        )
    return errors.DONE
