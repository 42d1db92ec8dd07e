"""Sends the rows of a parameter server to a model server, in its own process.

The chief, by `remote_sending`, calls the functions here: `begin`; for each chunk `take`
with its rows, `send`, and `state` until it is sent; `end`. All return at once, since a
call that waits for a slow model server would take a thread from training.
"""

import json
import threading

import grpc
import numpy as np

from monolith_tf import remote
from monolith_tf.serving import changed_rows
from monolith_tf.serving import errors
from monolith_tf.serving import guard
from monolith_tf.serving import row_sender
from monolith_tf.serving import undo_log
from monolith_tf.serving import update_client
from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping

_SENDINGS: dict[tuple[bytes, bytes], "_Sending"] = {}  # By server and device.


class _Sending:
    """Sends the rows of this process that one update of a server consists of.

    Args:
      order: From the chief, see `remote_sending`.
    """

    def __init__(self, order: JsonMapping) -> None:
        self._groups = order["groups"]
        self._largest = {
            changed_rows.update_name(table): changed_rows.largest_served(
                table, group["slices"]
            )
            for group in self._groups.values()
            for table in group["tables"]
        }
        self._rows: list[changed_rows.Rows] = []
        self._is_busy = False
        self._error: JsonDict | None = None
        self._sender: row_sender.RowSender | None = None
        try:
            self._sender = row_sender.RowSender(
                update_client.UpdateClient.from_json(order["client"]),
                chunk_bytes=order["chunk_bytes"],
                is_guarded=order["is_guarded"],
            )
            if order["undo"] is not None:
                self._sender.undo = undo_log.UndoPart(**order["undo"])
        except Exception as error:  # The chief asks for it.
            self._error = _described(error, is_local=True)

    def take(
        self,
        group: str,
        ids: np.ndarray,
        weights: np.ndarray,
        stamps: tuple[np.ndarray, ...],
    ) -> list[int]:
        """Keeps rows until `send`; returns their number, and the step they are of."""
        entry = self._groups[group]
        self._rows = list(changed_rows.by_table(entry, ids, weights))
        steps = stamps[entry["stamps"].index("step")]
        return [len(ids), int(steps.max()) + 1 if len(ids) else 0]

    def send(self, newest: int) -> None:
        """Begins to send what was taken."""
        self._is_busy = True
        threading.Thread(target=self._send, args=(newest,), daemon=True).start()

    def _send(self, newest: int) -> None:
        try:
            for rows in self._rows:
                if self._sender is not None:
                    self._sender.update(rows, self._largest[rows.table], newest)
        except Exception as error:  # The chief asks for it.
            self._error = _described(error)
        finally:
            self._rows = []
            self._is_busy = False

    def state(self) -> JsonDict:
        """Returns whether it is sending, its counts, and its error if there is one."""
        counts = {} if self._sender is None else self._sender.counts
        return {"is_busy": self._is_busy, "counts": counts, "error": self._error}

    def close(self) -> None:
        """Lets what is being sent fail."""
        if self._sender is not None:
            self._sender.client.close()


@remote.function
def begin(server: bytes, device: bytes, order: bytes) -> bytes:
    """Begins an update of a server; returns as `state`."""
    former = _SENDINGS.pop((server, device), None)
    if former is not None:  # Its chief is gone.
        former.close()
    _SENDINGS[server, device] = _Sending(json.loads(order))
    return state(server, device)


@remote.function
def take(
    server: bytes,
    device: bytes,
    group: bytes,
    ids: np.ndarray,
    weights: np.ndarray,
    optimizer_state: np.ndarray,
    *stamps: np.ndarray,
) -> np.ndarray:
    """Keeps rows until `send`; returns their number and the step they are of."""
    del optimizer_state
    taken = _SENDINGS[server, device].take(group.decode(), ids, weights, stamps)
    return np.array(taken, np.int64)


@remote.function
def send(server: bytes, device: bytes, newest: np.ndarray) -> bytes:
    """Begins to send what was taken; `newest` as in `RowSender.update`."""
    _SENDINGS[server, device].send(int(newest))
    return b""


@remote.function
def state(server: bytes, device: bytes) -> bytes:
    """Returns, as JSON, whether rows are being sent, counts, and the error."""
    return json.dumps(_SENDINGS[server, device].state()).encode()


@remote.function
def end(server: bytes, device: bytes) -> bytes:
    """Cancels what is being sent; returns whether that still goes on, as JSON."""
    sending = _SENDINGS.get((server, device))
    is_busy = False
    if sending is not None:
        sending.close()
        is_busy = bool(sending.state()["is_busy"])
        if not is_busy:
            del _SENDINGS[server, device]
    return json.dumps(is_busy).encode()


def _described(error: Exception, *, is_local: bool = False) -> JsonDict:
    """Returns an error as plain data; `raise_described` raises it again.

    Args:
      error: The error.
      is_local: Whether only this process has it.
    """
    if is_local:
        return {"kind": "other", "text": f"{type(error).__name__}: {error}"}
    if isinstance(error, grpc.RpcError):
        return {
            "kind": "rpc",
            "text": error.details() or "",
            "code": error.code().name,
        }
    kinds = {
        "refused": guard.RefusedError,
        "broken": update_client.BrokenError,
        "serving": errors.ServingError,
    }
    for kind, type_ in kinds.items():
        if isinstance(error, type_):
            return {"kind": kind, "text": str(error)}
    return _described(error, is_local=True)


class SendingError(grpc.RpcError):
    """A parameter server's request to a model server failed."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self._code = code
        self._text = text

    def code(self) -> grpc.StatusCode:
        """See `grpc.RpcError`."""
        return self._code

    def details(self) -> str:
        """See `grpc.RpcError`."""
        return self._text


def raise_described(error: JsonMapping, device: str) -> None:
    """Raises the error of a parameter server, as if it were this process' own."""
    kind, text = error["kind"], error["text"]
    if kind == "rpc":
        raise SendingError(grpc.StatusCode[error["code"]], text)
    if kind == "refused":
        raise guard.RefusedError(text)
    if kind == "broken":
        raise update_client.BrokenError(text)
    if kind == "serving":
        raise errors.ServingError(text)
    raise RuntimeError(f"The process of {device} cannot send its rows: {text}")
