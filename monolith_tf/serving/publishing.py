"""Sends the embedding rows that training changed to running model servers."""

import functools
import math
import pathlib
import queue
import threading
import time
from collections.abc import Callable
from collections.abc import Iterable
from typing import NamedTuple

import grpc
from absl import logging

from monolith_tf.distribute import task
from monolith_tf.serving import checkpoint_source
from monolith_tf.serving import errors
from monolith_tf.serving import source as source_lib
from monolith_tf.serving import tls as tls_lib
from monolith_tf.serving import update_client

CHUNK_BYTES = 3_900_000
"""Ids and rows per request; with the rest of the message below gRPC's 4 MiB."""

_FIRST_WAIT_SECS = 0.5
_LONGEST_WAIT_SECS = 30.0
_SHORTEST_TIMEOUT_SECS = 5.0
_LONGEST_TIMEOUT_SECS = 30.0
_CLOSING_SECS = 10.0
_TRANSIENT = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
)


class Published(NamedTuple):
    """The result of an update of one server.

    Attributes:
      version: The version it serves.
      from_step: Its step before.
      to_step: Its step now.
      updated: Rows sent.
      removed: Ids whose rows were removed.
      inserted: Ids that took one of the spare rows.
      clipped: Rows sent with numbers clipped to the range of their table's
        `compressor`, as in an export.
    """

    version: int
    from_step: int
    to_step: int
    updated: int
    removed: int
    inserted: int
    clipped: int = 0


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
        source: Callable[[], source_lib.PublishSource] | None = None,
    ) -> None:
        path = pathlib.Path(model_dir)
        self._open = source or functools.partial(
            checkpoint_source.CheckpointSource, path
        )
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
            for address in idle:
                thread = threading.Thread(
                    target=self._work, args=[address, source], name=address, daemon=True
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

    def _work(self, address: str, source: source_lib.PublishSource) -> None:
        try:
            self._done.put((address, self._patiently(address, source)))
        except Exception as error:  # It concerns one server; the others continue.
            self._done.put((address, error))

    def _patiently(self, address: str, source: source_lib.PublishSource) -> Published:
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
                    return _publish(client, source, self._chunk_bytes)
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


def _publish(
    client: update_client.UpdateClient,
    source: source_lib.PublishSource,
    chunk_bytes: int,
) -> Published:
    # The step moves last: a server that restarts in between stays at its export's step,
    # and the next call sends all rows again.
    nothing = source_lib.nothing(source)
    start = client.update(nothing).step
    updated = removed = inserted = clipped = 0
    if start < source.step:
        # Removals first: an id that got a row again since is then sent with it.
        for rows in source.removed(start):
            for piece in rows.split(chunk_bytes):
                client.newest = source.newest
                client.update(piece)
                removed += len(piece.ids)
        for rows in source.updated(start):
            client.newest = source.newest
            rows, beyond = rows.clipped(source.largest[rows.table])
            clipped += beyond
            for piece in rows.split(chunk_bytes):
                inserted += client.update(piece).inserted
                updated += len(piece.ids)
        client.update(nothing, step=source.step)
    elif start > source.step:
        raise errors.ServingError(
            f"{client.address} is at step {start}, ahead of the newest readable "
            f"checkpoint, of step {source.step}. Publish again when the job has "
            "trained further, or export it: `monolith-tf export CONFIG`."
        )
    if clipped:
        logging.warning(
            "%s: %d of %d rows have numbers out of range for their table's "
            "`compressor`, and were sent clipped, as in an export.",
            client.address,
            clipped,
            updated,
        )
    step = max(start, source.step)
    return Published(client.version, start, step, updated, removed, inserted, clipped)
