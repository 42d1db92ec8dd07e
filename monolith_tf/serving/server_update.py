"""One update of one server."""

import contextlib
import pathlib
import time
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

import grpc
import numpy as np
from absl import logging

from monolith_tf.serving import errors
from monolith_tf.serving import guard as guard_lib
from monolith_tf.serving import row_sender
from monolith_tf.serving import source as source_lib
from monolith_tf.serving import trial as trial_lib
from monolith_tf.serving import undo_log
from monolith_tf.serving import update_client
from monolith_tf.serving.changed_rows import Rows

_UNGUARDED: set[str] = set()  # Servers of which the log has said so.
_ROOM_SECS = 30.0  # A row rests for 10 to 20 s after its id was removed.
_ROOM_POLL_SECS = 0.5
_LISTED_IDS = 1 << 20  # About how many ids of a table are listed by a request.


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
      dense: Dense weights sent.
    """

    version: int
    from_step: int
    to_step: int
    updated: int
    removed: int
    inserted: int
    clipped: int = 0
    dense: int = 0


class ServerUpdate:
    """Brings a server to the values of a source.

    Args:
      client: A new client of the server.
      source: The values.
      chunk_bytes: Bytes per request.
      trial: Whether the values are fit to be served.
      undo_path: Where what is replaced is kept; None keeps nothing.
    """

    def __init__(
        self,
        client: update_client.UpdateClient,
        source: source_lib.PublishSource,
        *,
        chunk_bytes: int,
        trial: trial_lib.Trial,
        undo_path: pathlib.Path | None,
    ) -> None:
        self._client = client
        self._source = source
        self._chunk_bytes = chunk_bytes
        self._trial = trial
        self._undo_path = undo_path
        self._nothing = source_lib.nothing(source)
        self._keys: frozenset[str] = frozenset()
        self._undo: undo_log.UndoLog | None = None
        self._sender = row_sender.RowSender(
            client, chunk_bytes=chunk_bytes, is_guarded=trial.guard is not None
        )

    def run(self) -> Published:
        """Updates the server.

        Raises:
          RefusedError: If the values are not fit to be served. The server has what it
            had before.
          ServingError: If the server cannot be updated.
          BrokenError: If it was restarted meanwhile.
          grpc.RpcError: If there is no answer.
        """
        client, source = self._client, self._source
        start = self._begin()
        dense = 0
        if start < source.step:
            with self._turn(start) as is_first, self._put_back_if_stopped(start):
                if is_first:
                    self._measure()
                self._source.send(start, self._sender)
                dense = self._send_dense()
                if is_first:
                    self._check()
                # Last: what is put back needs no room then. An id that lost its row
                # and got one again was sent above.
                for rows in self._removed(start):
                    self._sender.remove(rows, self._source.newest)
                client.newest = max(client.newest, source.newest)
                client.update(self._nothing, step=source.step)
                self._finish_undo()
        elif start > source.step:
            raise errors.ServingError(
                f"{client.address} is at step {start}, ahead of the newest readable "
                f"checkpoint, of step {source.step}. Publish again when the job has "
                "trained further, or export it: `monolith-tf export CONFIG`."
            )
        sent = self._sender.counts
        if sent["clipped"]:
            logging.warning(
                "%s: %d of %d rows have numbers out of range for their table's "
                "`compressor`, and were sent clipped, as in an export.",
                client.address,
                sent["clipped"],
                sent["updated"],
            )
        step = max(start, source.step)
        return Published(client.version, start, step, **sent, dense=dense)

    def _begin(self) -> int:
        """Returns the server's step; sets it back if it is where the job is not."""
        client = self._client
        try:
            start = client.update(self._nothing).step
        except update_client.AheadError as error:
            self._keys = client.signatures()
            # Never that of another job, or of the folder that this one was copied from.
            past = [branch.id for branch in self._source.lineage.branches[:-1]]
            served = error.branches or past[-1:]
            is_own = bool(served) and self._source.owns(served)
            if update_client.ROLL_BACK not in self._keys or not is_own:
                raise
            client.roll_back(self._source.newest)
            logging.warning(
                "%s served values that this job does not come from, such as those "
                "that it had before it went back to a checkpoint. It is set back: all "
                "rows are sent.",
                client.address,
            )
            self._forget_undo()
            return 0
        if start >= self._source.step:
            return start
        self._keys = client.signatures()
        if self._undo_path is None:
            return start
        replaced = undo_log.read(self._undo_path)
        if (
            replaced is not None
            and replaced.after is None
            and (replaced.version, replaced.token) == (client.version, client.token)
        ):
            # The former update broke off; what it did not replace is not known to it.
            try:
                put_back(client, replaced, self._chunk_bytes)
            except errors.NoRoomError as error:
                logging.warning(
                    "%s: all rows are sent again: %s", client.address, error
                )
                self._forget_undo()
                return 0
            self._forget_undo()
            return replaced.step
        return start

    def _turn(self, start: int) -> contextlib.AbstractContextManager[bool]:
        """Waits for the verdict, or returns that this server is the one to try."""
        if not start:
            # It has learned nothing, or was set back: what it serves is no measure.
            return contextlib.nullcontext(False)
        if self._trial.guard is None or self._can_put_back:
            return self._trial.turn()
        if self._client.address not in _UNGUARDED:
            _UNGUARDED.add(self._client.address)
            logging.warning(
                "The model at %s was exported by an older version of monolith_tf: it "
                "is updated without a guard, and its dense weights stay those of the "
                "export. Export it again: `monolith-tf export CONFIG`.",
                self._client.address,
            )
        return contextlib.nullcontext(False)

    @property
    def _can_put_back(self) -> bool:
        needed = {update_client.READ_ROWS, update_client.ROLL_BACK}
        return self._undo_path is not None and needed <= self._keys

    @contextlib.contextmanager
    def _put_back_if_stopped(self, start: int) -> Iterator[None]:
        """Keeps what is replaced inside, and puts it back if the update is refused."""
        try:
            self._open_undo(start)
            yield
        except (guard_lib.RefusedError, errors.ServingError) as error:
            self._put_back_after(error)
            raise
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                self._put_back_after(error)
            raise
        finally:
            if self._undo is not None:
                self._undo.close()

    def _open_undo(self, start: int) -> None:
        if self._undo_path is None or not self._can_put_back:
            self._forget_undo()
            return
        client = self._client
        self._undo = undo_log.UndoLog(
            self._undo_path,
            version=client.version,
            token=client.token,
            step=start,
            nothing=self._nothing,
        )
        self._sender.undo = self._undo

    def _finish_undo(self) -> None:
        if self._undo is not None:
            client = self._client
            self._undo.finish(
                version=client.version,
                token=client.token,
                step=self._source.step,
            )

    def _forget_undo(self) -> None:
        if self._undo_path is not None:
            undo_log.remove(self._undo_path)

    def _removed(self, start: int) -> list[Rows]:
        """Returns zeros for ids that the server has and the job has not."""
        found = self._source.removed(start)
        if found is not None:
            return list(found)
        if update_client.LIST_ROWS not in self._keys:
            logging.warning(
                "The checkpoint of step %d no longer exists: ids that were removed "
                "since then are served until the next full version.",
                start,
            )
            return []
        removed = []
        known = self._source.ids()
        for table, dim in self._source.tables.items():
            mine = known.get(table, np.zeros([0], np.int64))
            parts = 1 + len(mine) // _LISTED_IDS
            for part in range(parts):
                served = self._client.list(table, part, parts)
                ids = np.setdiff1d(served, mine)
                if len(ids):
                    zeros = np.broadcast_to(np.float32(0), (len(ids), dim))
                    removed.append(Rows(table, ids, zeros))
        return removed

    def _send_dense(self) -> int:
        if update_client.UPDATE_DENSE not in self._keys:
            return 0
        try:
            flat = self._client.dense_layout().filled(self._source.dense())
        except ValueError as error:
            raise errors.ServingError(f"{self._client.address}: {error}") from None
        if not flat.size:
            return 0
        if self._trial.guard is not None:
            _check_finite(self._source.dense())
        if self._undo is not None:
            self._undo.add_dense(self._client.read_dense(self._chunk_bytes))
        self._client.send_dense(flat, self._chunk_bytes)
        return flat.size

    def _measure(self) -> None:
        """Asks the served model for the golden rows, if it is their measure."""
        guard = self._trial.guard
        if guard is not None and guard.rows is not None and not guard.has_measure:
            guard.measure(self._client.predict(guard.rows.inputs))

    def _check(self) -> None:
        """Raises RefusedError if the updated model predicts badly."""
        guard = self._trial.guard
        if guard is not None and guard.rows is not None:
            guard.check(self._client.predict(guard.rows.inputs))

    def _put_back_after(self, error: Exception) -> None:
        """Puts back what this update replaced so far."""
        if self._undo is None or self._undo_path is None:
            return
        self._undo.close()
        replaced = undo_log.read(self._undo_path)
        if replaced is None:
            return
        try:
            put_back(self._client, replaced, self._chunk_bytes)
        except (grpc.RpcError, errors.ServingError, RuntimeError) as second:
            # The next update finds the file, and begins by putting back.
            logging.warning(
                "%s: an update was stopped (%s), and what it had replaced could not "
                "be put back: %s",
                self._client.address,
                error,
                second,
            )
        else:
            self._forget_undo()


def _check_finite(values: Mapping[str, np.ndarray]) -> None:
    for path, value in values.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise guard_lib.RefusedError(
                f"the dense variable `{path}` has values that are not finite"
            )


def roll_back(
    client: update_client.UpdateClient,
    source: source_lib.PublishSource,
    undo_path: pathlib.Path,
    chunk_bytes: int,
) -> Published:
    """Puts back what the last update of a server replaced, and forgets it.

    Raises:
      ServingError: If that is not known, or the server does not serve it any more.
      grpc.RpcError: If there is no answer.
    """
    replaced = undo_log.read(undo_path)
    if replaced is None:
        raise errors.ServingError(
            f"{client.address}: it is not known what the last update replaced. It was "
            "rolled back already, was published from another folder, or the server's "
            "export is of an older version of monolith_tf."
        )
    before = client.update(source_lib.nothing(source)).step
    if replaced.after is None:
        now: tuple[object, ...] = (client.version, client.token)
        then: tuple[object, ...] = (replaced.version, replaced.token)
    else:
        now = (client.version, client.token, before)
        then = tuple(replaced.after[key] for key in ("version", "token", "step"))
    if now != then:
        raise errors.ServingError(
            f"{client.address} was restarted, or updated by another publisher, since "
            "the last update from here, and does not serve it any more."
        )
    put_back(client, replaced, chunk_bytes)
    undo_log.remove(undo_path)
    found = list(_before(replaced.rows))
    sizes = [len(rows.ids) for rows in found]
    removed = sum(len(rows.ids) for rows in found if not rows.weights.any())
    dense = 0 if replaced.dense is None else replaced.dense.size
    return Published(
        client.version,
        before,
        replaced.step,
        updated=sum(sizes) - removed,
        removed=removed,
        inserted=0,
        dense=dense,
    )


def put_back(
    client: update_client.UpdateClient, replaced: undo_log.Replaced, chunk_bytes: int
) -> None:
    """Puts back on a server what an update replaced, and its step."""
    client.roll_back(replaced.step)
    for rows in _before(replaced.rows):
        for piece in rows.split(chunk_bytes):
            _update_when_there_is_room(client, piece)
    if replaced.dense is not None:
        client.send_dense(replaced.dense, chunk_bytes)
    if replaced.step:
        nothing = np.zeros([0, replaced.dim], np.float32)
        rows = Rows(replaced.table, np.zeros([0], np.int64), nothing)
        client.update(rows, step=replaced.step)


def _before(replaced: Sequence[Rows]) -> Iterator[Rows]:
    """Yields each id's row before an update: first ids without one, which give room.

    Args:
      replaced: What was replaced, the last first.
    """
    by_table: dict[str, list[Rows]] = {}
    for rows in reversed(replaced):
        by_table.setdefault(rows.table, []).append(rows)
    left = []
    for table, parts in by_table.items():
        # An id may have been replaced twice.
        ids, first = np.unique(
            np.concatenate([rows.ids for rows in parts]), return_index=True
        )
        weights = np.concatenate([rows.weights for rows in parts])[first]
        has_row = weights.any(axis=1)
        if not has_row.all():
            yield Rows(table, ids[~has_row], weights[~has_row])
        left.append(Rows(table, ids[has_row], weights[has_row]))
    yield from (rows for rows in left if len(rows.ids))


def _update_when_there_is_room(client: update_client.UpdateClient, rows: Rows) -> None:
    """Sends rows; waits while rows of removed ids rest on the server."""
    end = time.monotonic() + _ROOM_SECS
    while True:
        try:
            client.update(rows)
            return
        except errors.NoRoomError:
            if time.monotonic() > end:
                raise
            time.sleep(_ROOM_POLL_SECS)
