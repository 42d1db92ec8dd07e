"""Sends what training changed in embedding rows to running model servers."""

import math
import pathlib
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import NamedTuple

import grpc
import numpy as np
from absl import logging

from monolith_tf import lineage as lineage_lib
from monolith_tf.distribute import task
from monolith_tf.serving import changed_rows
from monolith_tf.serving import errors
from monolith_tf.serving import update_client
from monolith_tf.training import checkpoint as checkpoint_lib

CHUNK_BYTES = 3_900_000
"""Of ids and rows in a request, which with its frame stays below gRPC's 4 MiB."""

_FIRST_WAIT_SECS = 0.5
_LONGEST_WAIT_SECS = 30.0
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
    """

    version: int
    from_step: int
    to_step: int
    updated: int
    removed: int
    inserted: int


def publish(
    model_dir: str | pathlib.Path,
    address: str,
    *,
    name: str = "default",
    patience_secs: float = 60.0,
    chunk_bytes: int = CHUNK_BYTES,
) -> Published:
    """Brings a server's rows to the newest checkpoint of a job.

    The server says at which step it stands: after a restart, or when it has gone over
    to another version, at that of its export. It gets all that changed since then. It
    may be called as often as one likes, but for one server from one place at a time.

    Args:
      model_dir: Of the job whose model is served.
      address: Of the server, `host:port`.
      name: What the server calls the model.
      patience_secs: How long to wait in all for a server that does not answer.
      chunk_bytes: Of rows in a request.

    Returns:
      What was sent.

    Raises:
      ServingError: If the server's model takes no updates or has no more room for new
        ids; if its rows are of another job, or newer than the newest checkpoint; or if
        the server does not answer.
      ValueError: If an argument cannot be used, there is no checkpoint, or it is
        damaged.
    """
    if not task.is_address(address):
        raise ValueError(
            "`address` must be host:port, with a port from 1 to 65535. "
            f"Received: address={address!r}."
        )
    if not 0.0 <= patience_secs < math.inf:
        raise ValueError(
            "`patience_secs` must be finite and not negative. "
            f"Received: patience_secs={patience_secs}."
        )
    checkpoints = checkpoint_lib.CheckpointDir(pathlib.Path(model_dir) / "checkpoints")
    newest = checkpoints.latest()
    if newest is None:
        raise checkpoint_lib.CheckpointError(
            f"There is no checkpoint in {checkpoints.path}. Train first: "
            "`monolith-tf train CONFIG`."
        )

    lineage = lineage_lib.of_state(newest.manifest["state"])
    if not lineage.branches:
        raise errors.ServingError(
            f"{newest.path} does not say which job it is of. Train on, export again, "
            "and publish the next checkpoint."
        )

    def attempt() -> Published:
        with update_client.UpdateClient(address, name, lineage, newest.step) as client:
            return _publish(client, checkpoints, newest, chunk_bytes)

    return _patiently(attempt, address, patience_secs)


def _publish(
    client: update_client.UpdateClient,
    checkpoints: checkpoint_lib.CheckpointDir,
    newest: checkpoint_lib.Checkpoint,
    chunk_bytes: int,
) -> Published:
    saved = changed_rows.SavedRows(newest.embedding_dir)
    table, dim = next(iter(saved.tables.items()))
    nothing = changed_rows.Rows(
        table, np.zeros([0], np.int64), np.zeros([0, dim], np.float32)
    )
    start = client.update(nothing).step
    updated = removed = inserted = 0
    if start < newest.step:
        for rows in saved.updated(start):
            for piece in rows.split(chunk_bytes):
                inserted += client.update(piece).inserted
                updated += len(piece.ids)
        for rows in _removed(checkpoints, saved, start):
            for piece in rows.split(chunk_bytes):
                client.update(piece)
                removed += len(piece.ids)
        client.update(nothing, step=newest.step)
    elif start > newest.step:
        raise errors.ServingError(
            f"{client.address} stands at step {start}, ahead of the newest checkpoint "
            f"that can be read, of step {newest.step}. Publish again when the job is "
            "further, or export it: `monolith-tf export CONFIG`."
        )
    step = max(start, newest.step)
    return Published(client.version, start, step, updated, removed, inserted)


def _removed(
    checkpoints: checkpoint_lib.CheckpointDir,
    saved: changed_rows.SavedRows,
    since_step: int,
) -> Iterator[changed_rows.Rows]:
    """Rows of zeros for the ids that were removed since a step."""
    names = {int(name.partition("-")[2]): name for name in checkpoints.names()}
    if since_step not in names:
        logging.warning(
            "There is no checkpoint of step %d any more: ids that were removed since "
            "then are served until the next full version.",
            since_step,
        )
        return
    before = checkpoint_lib.open_checkpoint(checkpoints.path / names[since_step])
    yield from saved.removed(changed_rows.SavedRows(before.embedding_dir))


def _patiently(
    attempt: Callable[[], Published], address: str, patience_secs: float
) -> Published:
    """Starts over, after ever longer waits, while the server does not answer."""
    waited, wait = 0.0, _FIRST_WAIT_SECS
    while True:
        try:
            return attempt()
        except update_client.BrokenError as error:
            reason = str(error)
        except grpc.RpcError as error:
            if error.code() not in _TRANSIENT:
                raise errors.ServingError(
                    f"{address} refuses an update: {error.details()}"
                ) from error
            reason = f"{error.code().name}: {error.details()}"
        if waited + wait > patience_secs:
            raise errors.ServingError(
                f"{address} could not be brought up to date. The last of several tries "
                f"in {waited:g} s ended with: {reason}"
            )
        logging.warning("%s: %s. Trying again in %.1f s.", address, reason, wait)
        time.sleep(wait)
        waited, wait = waited + wait, min(2 * wait, _LONGEST_WAIT_SECS)
