"""Sends the embedding rows that training changed to running model servers.

MODEL_DIR is the job whose model they serve, exported with `export.spare_rows`. Each
server gets what the newest checkpoint changes on it, by its signature
`update_embeddings`.
"""

import argparse
import sys
import time

from monolith_tf.cli import errors
from monolith_tf.cli import option_types
from monolith_tf.cli import tables


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the sub-command takes."""
    parser.add_argument("model_dir", metavar="MODEL_DIR", help="a job's folder")
    parser.add_argument(
        "--to",
        type=option_types.address,
        action="append",
        required=True,
        metavar="HOST:PORT",
        help="a server's gRPC address; once for each replica",
    )
    parser.add_argument(
        "--name",
        default="default",
        metavar="NAME",
        help="what the servers call the model (default: default)",
    )
    parser.add_argument(
        "--patience-secs",
        type=option_types.seconds_or_none,
        default=60.0,
        metavar="SECS",
        help="how long to wait for a server that does not answer (default: 60)",
    )
    parser.add_argument(
        "--every",
        type=option_types.seconds,
        metavar="SECS",
        help="do it again and again, with a pause of so many seconds",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the sub-command and returns the exit code."""
    from monolith_tf.cli import quiet
    from monolith_tf.cli import serving_extra

    serving_extra.check()
    quiet.import_tensorflow(verbose=arguments.verbose)
    while True:
        status = _publish_to_all(arguments)
        if arguments.every is None:
            return status
        time.sleep(arguments.every)


def _publish_to_all(arguments: argparse.Namespace) -> int:
    """Publishes to one server after the other; one that fails keeps none waiting."""
    from monolith_tf.serving import errors as serving_errors
    from monolith_tf.serving import publishing

    rows = []
    failed = []
    for address in arguments.to:
        try:
            done = publishing.publish(
                arguments.model_dir,
                address,
                name=arguments.name,
                patience_secs=arguments.patience_secs,
            )
        except serving_errors.ServingError as error:
            failed.append(str(error))
            continue
        rows.append([address, str(done.version), *done[1:]])
    if rows:
        titles = ["server", "version", "from step", "to step"]
        titles += ["rows", "removed", "new ids"]
        tables.show("Published", titles, rows)
    for reason in failed:
        sys.stderr.write(f"error: {reason}\n")
    return errors.FAILED if failed else errors.DONE
