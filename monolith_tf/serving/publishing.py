"""Sends what training changed in embedding rows to running model servers."""

import math
import pathlib
import queue
import threading
import time
from collections.abc import Iterable
from collections.abc import Iterator
from typing import NamedTuple

import grpc
import numpy as np
from absl import logging

from monolith_tf import lineage as lineage_lib
from monolith_tf.distribute import task
from monolith_tf.serving import changed_rows
from monolith_tf.serving import errors
from monolith_tf.serving import tls as tls_lib
from monolith_tf.serving import update_client
from monolith_tf.training import checkpoint as checkpoint_lib

CHUNK_BYTES = 3_900_000
"""Of ids and rows in a request, which with its frame stays below gRPC's 4 MiB."""

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
    """What one server was brought.

    Attributes:
      version: The version it serves.
      from_step: The step at which it stood.
      to_step: The step at which it stands now.
      updated: Rows sent.
      removed: Ids whose rows were taken away.
      inserted: Ids that took one of the spare rows.
      clipped: Rows sent with numbers clipped to what their table's `compressor` holds,
        as an export clips them.
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
    """Brings a server's rows to the newest checkpoint of a job.

    The server says at which step it stands: after a restart, or when it has gone over
    to another version, at that of its export. It gets all that changed since then. It
    may be called as often as one likes. Of two calls at a time for one server, the one
    with the older checkpoint is refused.

    Args:
      model_dir: Of the job whose model is served.
      address: Of the server, `host:port`.
      name: What the server calls the model.
      patience_secs: How long to wait in all for a server that does not answer.
      tls: What to connect with; None connects without TLS.
      chunk_bytes: Of rows in a request.

    Returns:
      What was sent.

    Raises:
      ServingError: If the server's model takes no updates or has no more room for new
        ids; if its rows are of another job, or newer than the newest checkpoint; if
        one end does not take the other's certificate; or if the server does not answer.
      ValueError: If an argument cannot be used, there is no checkpoint, or it is
        damaged.
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
    """Brings several servers up to date side by side.

    Each server has a thread of its own, so that one that is dead or slow delays no
    other; the checkpoint's files are read once for all of them.

    Args:
      model_dir: Of the job whose model is served.
      addresses: Of the servers, `host:port`.
      name: What the servers call the model.
      patience_secs: How long to wait in all for a server that does not answer.
      tls: What to connect with; its files are read for every connection. None
        connects without TLS.
      chunk_bytes: Of rows in a request.

    Raises:
      ServingError: If a file of `tls` cannot be used.
      ValueError: If an address or `patience_secs` cannot be used.

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
    ) -> None:
        self._model_dir = pathlib.Path(model_dir)
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
        """The servers that an earlier call has not come to an end with."""
        return [address for address in self._addresses if address in self._at_work]

    def publish(
        self, wait_secs: float | None = None
    ) -> dict[str, Published | Exception]:
        """Brings the servers that are not busy to the newest checkpoint of the job.

        Args:
          wait_secs: How long to wait for them. Those that are not done by then go on,
            and are left alone until they are. None waits for all.

        Returns:
          Server -> what was sent, or why it could not be, for all that came to an end
          since the call before.

        Raises:
          ServingError: If the newest checkpoint does not say which job it is of.
          ValueError: If there is no checkpoint, or it is damaged.
        """
        idle = [address for address in self._addresses if address not in self._at_work]
        if idle:
            source = _Source(self._model_dir)
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
        """Breaks off what is under way."""
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

    def _work(self, address: str, source: "_Source") -> None:
        try:
            self._done.put((address, self._patiently(address, source)))
        except Exception as error:  # It belongs to one server; the others go on.
            self._done.put((address, error))

    def _patiently(self, address: str, source: "_Source") -> Published:
        """Starts over, after ever longer waits, while the server does not answer."""
        silent, wait = 0.0, _FIRST_WAIT_SECS
        while True:
            timeout = max(_SHORTEST_TIMEOUT_SECS, self._patience_secs - silent)
            client = update_client.UpdateClient(
                address,
                self._name,
                source.lineage,
                source.step,
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
                            f"{address} cannot be published to: {refusal}"
                        ) from error
            silent += time.monotonic() - client.answered_at
            if silent + wait > self._patience_secs:
                raise errors.ServingError(
                    f"{address} could not be brought up to date. The last of several "
                    f"tries in {silent:.1f} s ended with: {reason}"
                )
            logging.warning("%s: %s. Trying again in %.1f s.", address, reason, wait)
            if self._stop.wait(wait):
                raise _broken_off(address)
            silent, wait = silent + wait, min(2 * wait, _LONGEST_WAIT_SECS)


def _broken_off(address: str) -> errors.ServingError:
    return errors.ServingError(f"{address}: publishing was broken off.")


class _Source:
    """The newest checkpoint of a job, opened once for all servers.

    Attributes:
      step: Its step.
      lineage: Of the job.
      nothing: A request's rows where there are none.
      largest: Table -> the largest numbers that can be served, `[dim]`, float32.
    """

    def __init__(self, model_dir: pathlib.Path) -> None:
        self._checkpoints = checkpoint_lib.CheckpointDir(model_dir / "checkpoints")
        newest = self._checkpoints.latest()
        if newest is None:
            raise checkpoint_lib.CheckpointError(
                f"There is no checkpoint in {self._checkpoints.path}. Train first: "
                "`monolith-tf train CONFIG`."
            )
        self.lineage = lineage_lib.of_state(newest.manifest["state"])
        if not self.lineage.branches:
            raise errors.ServingError(
                f"{newest.path} does not say which job it is of. Train on, export "
                "again, and publish the next checkpoint."
            )
        self._newest = newest  # Which is not removed meanwhile.
        self.step = newest.step
        self._saved = changed_rows.SavedRows(newest.embedding_dir)
        self.largest = self._saved.largest
        table, dim = next(iter(self._saved.tables.items()))
        self.nothing = changed_rows.Rows(
            table, np.zeros([0], np.int64), np.zeros([0, dim], np.float32)
        )
        self._lock = threading.Lock()
        self._removed: dict[int, list[changed_rows.Rows]] = {}

    def updated(self, since_step: int) -> Iterator[changed_rows.Rows]:
        """Rows inserted or updated at a step or later, chunk by chunk."""
        return self._saved.updated(since_step)

    def removed(self, since_step: int) -> list[changed_rows.Rows]:
        """Rows of zeros for the ids that were removed since a step."""
        with self._lock:
            if since_step not in self._removed:
                self._removed[since_step] = list(self._find_removed(since_step))
            return self._removed[since_step]

    def _find_removed(self, since_step: int) -> Iterator[changed_rows.Rows]:
        checkpoints = self._checkpoints
        names = {int(name.partition("-")[2]): name for name in checkpoints.names()}
        if since_step not in names:
            logging.warning(
                "There is no checkpoint of step %d any more: ids that were removed "
                "since then are served until the next full version.",
                since_step,
            )
            return
        before = checkpoint_lib.open_checkpoint(checkpoints.path / names[since_step])
        yield from self._saved.removed(changed_rows.SavedRows(before.embedding_dir))


def _publish(
    client: update_client.UpdateClient, source: _Source, chunk_bytes: int
) -> Published:
    start = client.update(source.nothing).step
    updated = removed = inserted = clipped = 0
    if start < source.step:
        for rows in source.updated(start):
            rows, beyond = rows.clipped(source.largest[rows.table])
            clipped += beyond
            for piece in rows.split(chunk_bytes):
                inserted += client.update(piece).inserted
                updated += len(piece.ids)
        for rows in source.removed(start):
            for piece in rows.split(chunk_bytes):
                client.update(piece)
                removed += len(piece.ids)
        client.update(source.nothing, step=source.step)
    elif start > source.step:
        raise errors.ServingError(
            f"{client.address} stands at step {start}, ahead of the newest checkpoint "
            f"that can be read, of step {source.step}. Publish again when the job is "
            "further, or export it: `monolith-tf export CONFIG`."
        )
    if clipped:
        logging.warning(
            "%s: %d of %d rows have numbers beyond what their table's `compressor` "
            "holds, and were sent clipped, as an export has them.",
            client.address,
            clipped,
            updated,
        )
    step = max(start, source.step)
    return Published(client.version, start, step, updated, removed, inserted, clipped)
