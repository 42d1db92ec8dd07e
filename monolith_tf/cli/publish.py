"""Sends embedding rows that training changed to running model servers.

MODEL_DIR is the folder of the job whose model they serve, exported with
`export.spare_rows`. Each server receives the rows that differ in the newest checkpoint,
through its signature `update_embeddings`.
"""

import argparse
import sys
import time

from monolith_tf.cli import errors
from monolith_tf.cli import option_types
from monolith_tf.cli import tables
from monolith_tf.cli import tls
from monolith_tf.types import JsonMapping


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the sub-command."""
    parser.add_argument("model_dir", metavar="MODEL_DIR", help="a job's folder")
    parser.add_argument(
        "--to",
        type=option_types.address,
        action="append",
        required=True,
        metavar="HOST:PORT",
        help="a server's gRPC address; repeat it for each replica",
    )
    parser.add_argument(
        "--name",
        default="default",
        metavar="NAME",
        help="the model's name on the servers (default: default)",
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
        help="publish repeatedly, with a pause of SECS",
    )
    tls.add_arguments(
        parser,
        ca="certificates of the CA that signed the servers'; connects by TLS",
        cert="a client certificate, for servers that ask for one",
    )
    parser.add_argument(
        "--tls-server-name",
        metavar="NAME",
        help="the name in the servers' certificates (default: the host)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the sub-command and returns the exit code."""
    from monolith_tf.cli import quiet
    from monolith_tf.cli import serving_extra

    tls.check(arguments)
    if arguments.tls_ca is None and (arguments.tls_cert or arguments.tls_server_name):
        raise errors.UsageError("Give --tls-ca too, to connect by TLS.")
    serving_extra.check()
    quiet.import_tensorflow(verbose=arguments.verbose)
    from monolith_tf.serving import publishing

    with publishing.Publisher(
        arguments.model_dir,
        arguments.to,
        name=arguments.name,
        patience_secs=arguments.patience_secs,
        tls=tls.read(arguments, server_name=arguments.tls_server_name),
    ) as publisher:
        while True:
            status = _show(publisher.publish(arguments.every))
            if arguments.every is None:
                return status
            if not publisher.busy:
                time.sleep(arguments.every)


def _show(outcomes: JsonMapping) -> int:
    """Prints the outcome for each server; returns the exit code."""
    failed = {a: found for a, found in outcomes.items() if isinstance(found, Exception)}
    rows = [
        [a, str(found.version), *found[1:]]
        for a, found in outcomes.items()
        if a not in failed
    ]
    if rows:
        titles = ["server", "version", "from step", "to step"]
        titles += ["rows", "removed", "new ids", "clipped"]
        tables.show("Published", titles, rows)
    for address, error in failed.items():
        reason = str(error)
        if not isinstance(error, ValueError | OSError):
            reason = f"{type(error).__name__}: {error}"
        if address not in reason:
            reason = f"{address}: {reason}"
        sys.stderr.write(f"error: {reason}\n")
    sys.stderr.flush()
    return errors.FAILED if failed else errors.DONE
