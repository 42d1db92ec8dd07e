"""Sends what training changed to running model servers.

MODEL_DIR is the folder of the job whose model they serve, exported with
`export.spare_rows`. Each server receives the rows that differ in the newest checkpoint,
and its dense weights. One server tries each update before the others get it.
"""

import argparse
import contextlib
import pathlib
import sys
import tempfile
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
    parser.add_argument(
        "--golden",
        metavar="FILES",
        help="labelled rows that one server predicts before the others are updated: "
        "files as the job reads them (default: a sample that the job keeps)",
    )
    parser.add_argument(
        "--no-guard",
        action="store_true",
        help="update all servers, whatever they predict then",
    )
    parser.add_argument(
        "--rollback",
        action="store_true",
        help="put back what the last update of each server replaced; a running job "
        "then publishes no more, until `publish` is run without --rollback",
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
    if arguments.rollback and (arguments.every or arguments.golden):
        raise errors.UsageError("--rollback goes with neither --every nor --golden.")
    if arguments.golden and arguments.no_guard:
        raise errors.UsageError("--golden and --no-guard exclude each other.")
    if arguments.tls_ca is None and (arguments.tls_cert or arguments.tls_server_name):
        raise errors.UsageError("Give --tls-ca too, to connect by TLS.")
    serving_extra.check()
    quiet.import_tensorflow(verbose=arguments.verbose)
    from monolith_tf.export.publish_spec import GuardSpec
    from monolith_tf.serving import publishing

    guard, golden = None if arguments.no_guard else GuardSpec(), None
    with contextlib.ExitStack() as stack:
        if guard is not None and arguments.golden:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            golden = _golden_rows(arguments, pathlib.Path(folder), guard.rows)
        publisher = stack.enter_context(
            publishing.Publisher(
                arguments.model_dir,
                arguments.to,
                name=arguments.name,
                patience_secs=arguments.patience_secs,
                guard=guard,
                golden=golden,
                tls=tls.read(arguments, server_name=arguments.tls_server_name),
            )
        )
        if arguments.rollback:
            return _show(publisher.roll_back(), title="Rolled back")
        while True:
            status = _show(publisher.publish(arguments.every))
            if arguments.every is None:
                return status
            if not publisher.busy:
                time.sleep(arguments.every)


def _golden_rows(
    arguments: argparse.Namespace, folder: pathlib.Path, limit: int
) -> pathlib.Path:
    """Writes the user's labelled rows as golden rows."""
    from monolith_tf import config as config_lib
    from monolith_tf.experiment import golden_sample

    path = folder / "rows.pb"
    config = config_lib.load_config(
        pathlib.Path(arguments.model_dir) / "config.yaml",
        [f"data.test={arguments.golden}"],
    )
    golden_sample.of_files(config, path, limit)
    return path


def _show(outcomes: JsonMapping, title: str = "Published") -> int:
    """Prints the outcome for each server; returns the exit code."""
    failed = {a: found for a, found in outcomes.items() if isinstance(found, Exception)}
    rows = [
        [a, str(found.version), *found[1:]]
        for a, found in outcomes.items()
        if a not in failed
    ]
    if rows:
        titles = ["server", "version", "from step", "to step"]
        titles += ["rows", "removed", "new ids", "clipped", "dense"]
        tables.show(title, titles, rows)
    for address, error in failed.items():
        reason = str(error)
        if not isinstance(error, ValueError | OSError):
            reason = f"{type(error).__name__}: {error}"
        if address not in reason:
            reason = f"{address}: {reason}"
        sys.stderr.write(f"error: {reason}\n")
    sys.stderr.flush()
    return errors.FAILED if failed else errors.DONE
