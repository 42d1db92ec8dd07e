"""Sends what training changed to running model servers."""

import functools
import math
import pathlib
import queue
import threading
import time
from collections.abc import Callable
from collections.abc import Iterable

import grpc
from absl import logging

from monolith_tf.distribute import task
from monolith_tf.export.publish_spec import GuardSpec
from monolith_tf.serving import checkpoint_source
from monolith_tf.serving import errors
from monolith_tf.serving import golden as golden_lib
from monolith_tf.serving import guard as guard_lib
from monolith_tf.serving import server_update
from monolith_tf.serving import source as source_lib
from monolith_tf.serving import tls as tls_lib
from monolith_tf.serving import trial as trial_lib
from monolith_tf.serving import undo_log
from monolith_tf.serving import update_client
from monolith_tf.serving.server_update import Published

CHUNK_BYTES = 3_900_000
"""Ids and rows per request; with the rest of the message below gRPC's 4 MiB."""

_FIRST_WAIT_SECS = 0.5
_LONGEST_WAIT_SECS = 30.0
_SHORTEST_TIMEOUT_SECS = 5.0
_LONGEST_TIMEOUT_SECS = 30.0
_CLOSING_SECS = 10.0
_GUARD = GuardSpec()
_TRANSIENT = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
)


def publish(
    model_dir: str | pathlib.Path,
    address: str,
    *,
    name: str = "default",
    patience_secs: float = 60.0,
    tls: tls_lib.Tls | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> Published:
    """Updates a server's rows to the newest checkpoint of a job.

    The server reports its step: after a restart, or a switch to another version, that
    of its export. It receives all rows that changed since then. You may call this as
    often as you like. Of two concurrent calls for one server, the one with the older
    checkpoint is refused.

    Args:
      model_dir: The folder of the served model's job.
      address: The server's, `host:port`.
      name: The model's name on the server.
      patience_secs: How long to wait in all for a server that does not answer.
      tls: Files for TLS; None connects without TLS.
      chunk_bytes: Bytes of rows per request.

    Returns:
      The server's steps and the rows sent.

    Raises:
      ServingError: If the server's model takes no updates or has no more room for new
        ids; if its rows are of another job, or newer than the newest checkpoint; if
        one end rejects the other's certificate; or if the server does not answer.
      ValueError: If an argument is invalid, there is no checkpoint, or it is damaged.
    """
    with Publisher(
        model_dir,
        [address],
        name=name,
        patience_secs=patience_secs,
        tls=tls,
        chunk_bytes=chunk_bytes,
    ) as publisher:
        (outcome,) = publisher.publish().values()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


class Publisher:
    """Updates several servers in parallel.

    Each server has its own thread, so a dead or slow one delays no other; the
    checkpoint's files are read once for all of them.

    Args:
      model_dir: The folder of the served model's job.
      addresses: The servers', `host:port`.
      name: The model's name on the servers.
      patience_secs: How long to wait in all for a server that does not answer.
      tls: Files for TLS, read for every connection; None connects without TLS.
      chunk_bytes: Bytes of rows per request.
      guard: When an update is refused, after one server has tried it; None refuses
        none.
      golden: File of labelled rows, as a job writes it; None takes `golden_rows.pb` in
        `model_dir`. Without it, only numbers that are not finite are refused.
      source: Returns what to publish; None takes the newest checkpoint in `model_dir`.

    Raises:
      ServingError: If a file of `tls` is invalid.
      ValueError: If an address or `patience_secs` is invalid.

    Example::

        with Publisher("runs/a", ["host-1:8500", "host-2:8500"]) as publisher:
            outcomes = publisher.publish()
    """

    def __init__(
        self,
        model_dir: str | pathlib.Path,
        addresses: Iterable[str],
        *,
        name: str = "default",
        patience_secs: float = 60.0,
        tls: tls_lib.Tls | None = None,
        chunk_bytes: int = CHUNK_BYTES,
        guard: GuardSpec | None = _GUARD,
        golden: str | pathlib.Path | None = None,
        source: Callable[[], source_lib.PublishSource] | None = None,
    ) -> None:
        self._model_dir = pathlib.Path(model_dir)
        self._open = source or functools.partial(
            checkpoint_source.CheckpointSource, self._model_dir
        )
        self._golden = pathlib.Path(golden or self._model_dir / golden_lib.FILE)
        self._golden_read_at = 0
        self._ends_hold = source is None
        self._is_golden_needed = golden is not None
        self._guard = None if guard is None else guard_lib.Guard(guard, None)
        self._addresses = list(dict.fromkeys(addresses))
        for address in self._addresses:
            if not task.is_address(address):
                raise ValueError(
                    "`addresses` must be host:port, with a port from 1 to 65535. "
                    f"Received: {address!r}."
                )
        if not 0.0 <= patience_secs < math.inf:
            raise ValueError(
                "`patience_secs` must be finite and not negative. "
                f"Received: patience_secs={patience_secs}."
            )
        self._name = name
        self._patience_secs = patience_secs
        self._tls = tls
        if tls is not None:
            tls.client_context()
        self._chunk_bytes = chunk_bytes
        self._at_work: dict[str, threading.Thread] = {}
        self._clients: dict[str, update_client.UpdateClient] = {}
        self._done: queue.SimpleQueue[tuple[str, Published | Exception]] = (
            queue.SimpleQueue()
        )
        self._stop = threading.Event()

    @property
    def busy(self) -> list[str]:
        """The servers that an earlier call is still updating."""
        return [address for address in self._addresses if address in self._at_work]

    def publish(
        self,
        wait_secs: float | None = None,
        *,
        only: Iterable[str] | None = None,
    ) -> dict[str, Published | Exception]:
        """Updates the servers that are not busy to the newest checkpoint of the job.

        Args:
          wait_secs: How long to wait for them. Servers that are not done by then
            continue, and stay busy until they are. None waits for all.
          only: The servers to update; None updates all.

        Returns:
          Server -> the result or the error, for all that finished since the last call.

        Raises:
          ServingError: If the newest checkpoint does not record its job.
          ValueError: If there is no checkpoint, or it is damaged.
        """
        wanted = set(self._addresses if only is None else only)
        idle = [a for a in self._addresses if a in wanted and a not in self._at_work]
        if idle:
            source = self._open()
            self._read_golden()
            if self._ends_hold:
                undo_log.hold_path(self._model_dir).unlink(missing_ok=True)
            trial = trial_lib.Trial(self._guard)
            for address in idle:
                thread = threading.Thread(
                    target=self._work,
                    args=[address, source, trial],
                    name=address,
                    daemon=True,
                )
                self._at_work[address] = thread
                thread.start()
        end = None if wait_secs is None else time.monotonic() + wait_secs
        outcomes = {}
        while self._at_work:
            left = None if end is None else max(0.0, end - time.monotonic())
            try:
                address, outcome = self._done.get(timeout=left)
            except queue.Empty:
                break
            self._at_work.pop(address).join()
            outcomes[address] = outcome
        return {a: outcomes[a] for a in self._addresses if a in outcomes}

    def roll_back(self) -> dict[str, Published | Exception]:
        """Puts back on each server what its last update replaced.

        A running job then publishes no more, until `publish` is called or the file
        `published/on_hold` in the job's folder is removed.

        Returns:
          Server -> the result or the error.

        Raises:
          ServingError: If the job is not known.
          ValueError: If there is no checkpoint, or it is damaged.
        """
        source = self._open()
        hold = undo_log.hold_path(self._model_dir)
        hold.parent.mkdir(parents=True, exist_ok=True)
        hold.touch()
        outcomes: dict[str, Published | Exception] = {}
        for address in self._addresses:
            try:
                with update_client.UpdateClient(
                    address,
                    self._name,
                    source.lineage,
                    source.newest,
                    tls=self._tls,
                    timeout_secs=_LONGEST_TIMEOUT_SECS,
                ) as client:
                    outcomes[address] = server_update.roll_back(
                        client,
                        source,
                        undo_log.path(self._model_dir, address),
                        self._chunk_bytes,
                    )
            except grpc.RpcError as error:
                outcomes[address] = errors.ServingError(
                    f"{address} was not rolled back: {error.details()}"
                )
            except (RuntimeError, ValueError) as error:
                outcomes[address] = error
        return outcomes

    def close(self) -> None:
        """Cancels the updates in progress."""
        self._stop.set()
        for client in list(self._clients.values()):
            client.close()
        end = time.monotonic() + _CLOSING_SECS
        for thread in self._at_work.values():
            thread.join(max(0.0, end - time.monotonic()))

    def __enter__(self) -> "Publisher":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _read_golden(self) -> None:
        """Reads the golden rows, if they are new."""
        if self._guard is None:
            return
        try:
            written = self._golden.stat().st_mtime_ns
        except OSError:
            if self._is_golden_needed:
                self._guard.replace(golden_lib.read(self._golden))  # Raises.
            return
        if written != self._golden_read_at:
            self._guard.replace(golden_lib.read(self._golden))
            self._golden_read_at = written

    def _work(
        self, address: str, source: source_lib.PublishSource, trial: trial_lib.Trial
    ) -> None:
        try:
            self._done.put((address, self._patiently(address, source, trial)))
        except Exception as error:  # It concerns one server; the others continue.
            self._done.put((address, error))

    def _patiently(
        self, address: str, source: source_lib.PublishSource, trial: trial_lib.Trial
    ) -> Published:
        """Starts over, with increasing waits, while the server does not answer."""
        # A new client per attempt has no token, so the server reports its step again
        # and receives everything since: rows of an attempt that broke may be lost.
        silent, wait = 0.0, _FIRST_WAIT_SECS
        while True:
            timeout = max(_SHORTEST_TIMEOUT_SECS, self._patience_secs - silent)
            client = update_client.UpdateClient(
                address,
                self._name,
                source.lineage,
                source.newest,
                tls=self._tls,
                timeout_secs=min(timeout, _LONGEST_TIMEOUT_SECS),
            )
            try:
                with client:
                    self._clients[address] = client
                    if self._stop.is_set():
                        raise _broken_off(address)
                    return server_update.ServerUpdate(
                        client,
                        source,
                        chunk_bytes=self._chunk_bytes,
                        trial=trial,
                        undo_path=undo_log.path(self._model_dir, address),
                    ).run()
            except update_client.BrokenError as error:
                reason = str(error)
            except grpc.RpcError as error:
                if error.code() not in _TRANSIENT:
                    raise errors.ServingError(
                        f"{address} refuses an update: {error.details()}"
                    ) from error
                reason = f"{error.code().name}: {error.details()}"
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    refusal = tls_lib.refusal(address, self._tls)
                    if refusal is not None:
                        raise errors.ServingError(
                            f"Cannot publish to {address}: {refusal}"
                        ) from error
            silent += time.monotonic() - client.answered_at
            if silent + wait > self._patience_secs:
                raise errors.ServingError(
                    f"Could not update {address}. The last of several attempts in "
                    f"{silent:.1f} s failed with: {reason}"
                )
            logging.warning("%s: %s. Retrying in %.1f s.", address, reason, wait)
            if self._stop.wait(wait):
                raise _broken_off(address)
            silent, wait = silent + wait, min(2 * wait, _LONGEST_WAIT_SECS)


def _broken_off(address: str) -> errors.ServingError:
    return errors.ServingError(f"{address}: publishing was cancelled.")
