"""Checks that a model server serves, batches and updates this project's exports.

    scripts/check_model_server [--binary FILE | --stand-in] [--export DIR]
                               [--only {plain,batching,tls}]

Trains and exports a small job, and starts `tensorflow_model_server` three times: plain,
with `--enable_batching`, and with an `--ssl_config_file` that requires client
certificates. Each time

- every signature is queried by gRPC and REST, and must match the SavedModel's answer in
  this process;
- rows with lists of different lengths are requested at once, which a server with
  batching merges;
- `monolith-tf publish` sends the job's later rows, after which the server must answer
  like a new export;
- `update_dense` replaces the dense weights, in two pieces, after which it must answer
  like the SavedModel in this process with the same weights.

`--export DIR` checks your own export, and skips the steps that need its job.
`--stand-in` starts `monolith-tf serve`, which has no batching: the script then applies
the rules of TF Serving's batcher to the requests. All requests use this machine's
loopback address, but `tensorflow_model_server` itself listens on all addresses, so run
this on a machine whose ports are not reachable from outside. The exit code is 1 after
the first step that fails.
"""

import argparse
import contextlib
import pathlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import certificates
import clients
import job as job_lib
import numpy as np
import servers

from monolith_tf.testing import batching

_BINARY = "tensorflow_model_server"


class _FailedError(Exception):
    """A step failed, and its error is printed."""


@contextlib.contextmanager
def _step(text: str) -> Iterator[None]:
    """Prints a step and its result."""
    print(f"{text} ...", end=" ", flush=True)
    try:
        yield
    except Exception as error:
        print("failed", flush=True)
        print(f"  {type(error).__name__}: {error}".replace("\n", "\n  "), flush=True)
        raise _FailedError from error
    print("ok", flush=True)


def _check(
    kind: str, server: servers.Server, export: job_lib.Version, later: Any
) -> None:
    """Runs all checks on one started server.

    Args:
      kind: One of `servers.KINDS`.
      server: The server, just started.
      export: The version it serves.
      later: A new export after more training, and a function that publishes; or None.
    """
    is_batching = kind == "batching"
    with _step(f"[{kind}] starts and answers the warm-up"):
        server.wait_until_available()
    with clients.Client(server) as client:
        for key, method, inputs in export.requests(joined=is_batching):
            with _step(f"[{kind}] {method} {key} by gRPC"):
                _refuse_unbatchable(is_batching, inputs)
                clients.compare(
                    client.ask(key, method, inputs), export.answer(key, inputs)
                )
            if method == "predict" and server.has_rest:
                with _step(f"[{kind}] {method} {key} by REST"):
                    clients.compare(
                        client.ask_rest(key, inputs), export.answer(key, inputs)
                    )
        rows = export.single_rows()
        with _step(f"[{kind}] {len(rows)} requests at once, lists of any length"):
            for inputs in rows:
                _refuse_unbatchable(is_batching, inputs)
            for inputs, answer in zip(rows, client.ask_at_once(rows), strict=True):
                expected = export.answer(clients.DEFAULT, inputs)
                clients.compare(answer, expected)
        if later is None:
            return
        fresh, publish = later
        _, _, inputs = next(export.requests(joined=is_batching))
        before = export.answer(clients.DEFAULT, inputs)
        after = fresh.answer(clients.DEFAULT, inputs)
        with _step(f"[{kind}] monolith-tf publish"):
            if clients.largest_difference(before, after) < 1e-3:
                raise ValueError("The rows to send would change no answer.")
            publish(server)
        with _step(f"[{kind}] answers as a new export does"):
            clients.compare(client.ask(clients.DEFAULT, "predict", inputs), after)
        with _step(f"[{kind}] update_dense by gRPC"):
            changed = job_lib.Version(fresh.path)
            vector = client.read_dense() * np.float32(0.5)
            client.send_dense(vector, changed.sender())
            changed.replace_dense(vector)
            expected = changed.answer(clients.DEFAULT, inputs)
            if clients.largest_difference(after, expected) < 1e-3:
                raise ValueError("The weights to send would change no answer.")
            clients.compare(client.ask(clients.DEFAULT, "predict", inputs), expected)


def _refuse_unbatchable(is_batching: bool, inputs: Any) -> None:
    reason = batching.refusal(inputs, servers.MAX_BATCH_SIZE) if is_batching else None
    if reason is not None:
        raise ValueError(f"A server with batching refuses this request: {reason}.")


def _run(arguments: argparse.Namespace, folder: pathlib.Path) -> None:
    """Creates the exports, and checks all starts of a server."""
    later = None
    if arguments.export is not None:
        with _step(f"load {arguments.export}"):
            export = job_lib.Version(job_lib.newest_version(arguments.export))
    else:
        job = job_lib.Job(folder / "job")
        with _step("train and export a small job"):
            export = job_lib.Version(job.train_and_export(4, "export"))
        with _step("train further, and export again"):
            later = (
                job_lib.Version(job.train_and_export(20, "second")),
                job.publish,
            )
    with _step("create certificates"):
        files = certificates.make(folder / "certificates")
    for kind in arguments.only or servers.KINDS:
        with servers.start(
            kind, arguments.binary, export.path.parent, files, folder / f"{kind}.log"
        ) as server:
            _check(kind, server, export, later)


def _stop_late(number: int, frame: Any) -> None:
    del number, frame
    raise TimeoutError("The check takes longer than --timeout-secs.")


def main() -> int:
    """Runs the check; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--binary", default=_BINARY, help=f"default: {_BINARY}")
    which.add_argument(
        "--stand-in",
        action="store_true",
        help="start `monolith-tf serve` instead, if there is no model server",
    )
    parser.add_argument(
        "--export", type=pathlib.Path, metavar="DIR", help="a folder of versions"
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=servers.KINDS,
        help="start the server only in this way; repeatable",
    )
    parser.add_argument(
        "--timeout-secs",
        type=int,
        default=1200,
        metavar="SECS",
        help="time limit of the whole check (default: 1200)",
    )
    arguments = parser.parse_args()
    if arguments.stand_in:
        arguments.binary = None
    elif shutil.which(arguments.binary) is None:
        parser.error(
            f"there is no program {arguments.binary}. Name one with --binary, or use "
            "--stand-in."
        )
    signal.signal(signal.SIGALRM, _stop_late)
    signal.alarm(arguments.timeout_secs)
    with tempfile.TemporaryDirectory(prefix="check_model_server_") as folder:
        try:
            _run(arguments, pathlib.Path(folder))
        except _FailedError:
            return 1
        except TimeoutError as error:
            print(f"failed\n  {error}")
            return 1
    print("All steps passed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
