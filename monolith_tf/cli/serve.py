"""Serves an export by gRPC and REST, as TF Serving does; for development.

EXPORT_DIR holds a folder for each version. The highest is served, and a higher one
takes over when it appears. For production, use `docker run tensorflow/serving`.
"""

import argparse
import contextlib
import signal
import sys
import time

from monolith_tf.cli import errors
from monolith_tf.cli import option_types
from monolith_tf.cli import tls

_LOOK_SECS = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the sub-command."""
    parser.add_argument("export_dir", metavar="EXPORT_DIR", help="a folder of versions")
    parser.add_argument(
        "--port",
        type=option_types.port,
        default=8500,
        metavar="P",
        help="the port for gRPC (default: 8500)",
    )
    parser.add_argument(
        "--rest-port",
        type=option_types.port,
        metavar="Q",
        help="the port for HTTP (default: none)",
    )
    parser.add_argument(
        "--host",
        type=option_types.host,
        default="127.0.0.1",
        metavar="ADDRESS",
        help="where to listen (default: 127.0.0.1, only this machine)",
    )
    parser.add_argument(
        "--name",
        default="default",
        metavar="NAME",
        help="the model's name in requests (default: default)",
    )
    parser.add_argument(
        "--poll-secs",
        type=option_types.seconds,
        default=1.0,
        metavar="SECS",
        help="time between checks for a new version (default: 1)",
    )
    tls.add_arguments(
        parser,
        ca="certificates of the clients' CA; only clients that it signed are served",
        cert="the server's certificate; listens by TLS",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the sub-command and returns the exit code."""
    from monolith_tf.cli import quiet
    from monolith_tf.cli import serving_extra

    tls.check(arguments)
    if arguments.tls_ca is not None and arguments.tls_cert is None:
        raise errors.UsageError(
            "--tls-ca needs --tls-cert and --tls-key, the server's."
        )
    serving_extra.check()
    quiet.import_tensorflow(verbose=arguments.verbose)
    from monolith_tf.serving import server as server_lib

    with server_lib.ModelServer(
        arguments.export_dir,
        port=arguments.port,
        rest_port=arguments.rest_port,
        host=arguments.host,
        name=arguments.name,
        poll_secs=arguments.poll_secs,
        tls=tls.read(arguments),
    ) as server:
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        scheme = "https" if arguments.tls_cert else "http"
        lines = [
            f"Serving version {server.versions.version} of {arguments.export_dir} as "
            f"`{arguments.name}`:",
            f"  gRPC {host}:{server.port}",
        ]
        if server.rest_port is not None:
            lines.append(
                f"  REST {scheme}://{host}:{server.rest_port}/v1/models/"
                f"{arguments.name}:predict"
            )
        sys.stdout.write("\n".join([*lines, "Ctrl-C stops it.\n"]))
        sys.stdout.flush()
        _wait_for_signal()
    sys.stdout.write("Stopped.\n")
    return errors.DONE


def _wait_for_signal() -> None:
    """Returns after Ctrl-C or SIGTERM."""
    # A handler must not take a lock that this thread may hold, such as an event's.
    asked: list[int] = []
    former = signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    try:
        with contextlib.suppress(KeyboardInterrupt):
            while not asked:
                time.sleep(_LOOK_SECS)
    finally:
        signal.signal(signal.SIGTERM, former)
