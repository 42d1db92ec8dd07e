"""Lets the parameter servers of a job send their rows to a model server.

    order: {client, chunk_bytes, is_guarded, undo, groups: {name: manifest entry}}

The rows do not pass through this process. It receives their numbers and steps only.
"""

import json
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
import tensorflow as tf

from monolith_tf import remote
from monolith_tf.embedding.saved import by_device
from monolith_tf.embedding.saved import write
from monolith_tf.embedding.shard.marks import Mark
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.serving import server_rows
from monolith_tf.serving import undo_log
from monolith_tf.serving.row_sender import RowSender
from monolith_tf.types import JsonDict

_FIRST_POLL_SECS = 0.002
_LONGEST_POLL_SECS = 0.05


def send(
    store: EmbeddingStore,
    since: Mark | int,
    sender: RowSender,
    on_newest: Callable[[int], None],
) -> None:
    """Sends the rows of a store that changed.

    All parameter servers read a chunk each, and then send it, at the same time: a model
    server refuses rows of an older step than others that it has, so the newest step of
    all chunks must be known first.

    Args:
      store: The store, whose shards are on other devices.
      since: A mark, or the first step.
      sender: The parameter servers send what it would, and it counts their rows.
      on_newest: Called with the newest step of the rows before they are sent.

    Raises:
      RpcError: If a server has no answer, or the sender's client is closed meanwhile.
      OpError: If a parameter server is gone.
      Exception: As `RowSender.update`.
    """
    chunks = store.sending(server_rows.take, since, sender.client.address)
    servers = _Servers(list(chunks), store.placement.token, sender)
    try:
        servers.begin({group.name: write.group_entry(group) for group in store.groups})
        newest = 0
        while True:
            taken = servers.take(chunks)
            if not taken:
                break
            newest = max(newest, *taken.values())
            on_newest(newest)
            sender.client.newest = max(sender.client.newest, newest)
            servers.send(list(taken))
    finally:
        # What is put back after an error must not be overwritten.
        servers.end()
    for counts in servers.counts.values():
        for name, count in counts.items():
            sender.counts[name] += count


class _Servers:
    """The parameter servers while they send their rows.

    Attributes:
      counts: Device -> what its server has sent.

    Args:
      devices: One device of each.
      token: Of `remote.call` there.
      sender: See `send`.
    """

    def __init__(self, devices: Sequence[str], token: str, sender: RowSender) -> None:
        self.counts: dict[str, dict[str, int]] = {}
        self._devices = devices
        self._token = token
        self._sender = sender

    def begin(self, groups: JsonDict) -> None:
        """Begins an update."""
        sender, undo = self._sender, self._sender.undo
        for number, device in enumerate(self._devices):
            part = None
            if isinstance(undo, undo_log.UndoLog):
                part = undo.part(number)
            order = {
                "client": sender.client.to_json(),
                "chunk_bytes": sender.chunk_bytes,
                "is_guarded": sender.is_guarded,
                "undo": part,
                "groups": groups,
            }
            self._note(device, self._call(server_rows.begin, device, json.dumps(order)))

    def take(self, chunks: dict[str, Iterator[np.ndarray]]) -> dict[str, int]:
        """Lets servers read their next rows; returns device -> newest step of them."""
        found: dict[str, int] = {}

        def take_one(device: str) -> None:
            for rows, newest in chunks[device]:
                if rows:
                    found[device] = int(newest)
                    return

        by_device.for_all(self._devices, take_one)
        return found

    def send(self, devices: Sequence[str]) -> None:
        """Lets servers send what they took, and waits until all have done so."""
        newest = np.int64(self._sender.client.newest)
        for device in devices:
            self._call(server_rows.send, device, newest)
        left, wait = list(devices), _FIRST_POLL_SECS
        while left:
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_POLL_SECS)
            if self._sender.client.is_closed:
                raise server_rows.SendingError(
                    grpc.StatusCode.CANCELLED, "publishing was cancelled"
                )
            left = [d for d in left if self._note(d, self._call(server_rows.state, d))]
        self._sender.client.answered_at = time.monotonic()

    def end(self) -> None:
        """Ends the update, and waits for requests on the way to end."""
        for device in self._devices:
            try:
                while json.loads(self._call(server_rows.end, device)):
                    time.sleep(_FIRST_POLL_SECS)
            except tf.errors.OpError:
                pass  # It is gone, and sends nothing any more.

    def _note(self, device: str, content: bytes) -> bool:
        """Notes a server's state, and returns whether it is sending."""
        state = json.loads(content)
        if state["error"] is not None:
            server_rows.raise_described(state["error"], device)
        self.counts[device] = state["counts"]
        return bool(state["is_busy"])

    def _call(
        self, function: Callable[..., Any], device: str, *arguments: object
    ) -> bytes:
        address = self._sender.client.address
        with tf.device(device):
            found: bytes = remote.call(
                function, address, device, *arguments, token=self._token
            ).numpy()
        return found
