"""Reads rows of a shard on its device, for this process or for a function there."""

import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import ClassVar
from typing import Literal

import numpy as np
import tensorflow as tf

from monolith_tf import remote
from monolith_tf.embedding.shard.bindable import Bindable
from monolith_tf.embedding.shard.bindable import Packed
from monolith_tf.embedding.shard.chunk import Chunk
from monolith_tf.embedding.shard.shard import Shard
from monolith_tf.types import Tensor


@dataclasses.dataclass(frozen=True)
class Which:
    """Which rows in use are read.

    Attributes:
      stamp: The column that is compared; "" reads all rows.
      since: Rows whose stamp is at least this.
    """

    stamp: Literal["", "step", "changed"] = ""
    since: int = 0


ALL = Which()


class ShardRows(Bindable):
    """Reads rows in use, some row numbers at a time.

    Args:
      shard: The shard.
      which: Which rows.
      with_state: Whether optimizer state is read too.
      is_locked: Whether reading holds the shard's lock. Without it a row may be read
        while it is written, and a row that moves may be read twice.
      function: Called with the rows on their device: a function for `remote.call`.
      dtype: Of its results.
      token: Token of that.
    """

    own: ClassVar[tuple[str, ...]] = ("shard",)
    shared: ClassVar[tuple[str, ...]] = (
        "_stamp",
        "_with_state",
        "_is_locked",
        "_function",
        "_dtype",
        "_token",
    )

    def __init__(
        self,
        shard: Shard,
        which: Which = ALL,
        *,
        with_state: bool = True,
        is_locked: bool = True,
        function: Callable[..., Any] | None = None,
        dtype: tf.DType = tf.int64,
        token: str = "",
    ) -> None:
        self.shard = shard
        self._since = which.since
        self._stamp = which.stamp
        self._with_state = with_state
        self._is_locked = is_locked
        self._function = function
        self._dtype = dtype
        self._token = token
        with tf.device(shard.device):
            self._packed = Packed(self)

    def chunks(self, size: int) -> Iterator[Chunk]:
        """Yields the rows, from at most `size` row numbers at a time."""
        for start, end in self.shard.ranges(size):
            ids, weights, state, *stamps = self._call("read", start, end)
            if len(ids):
                named = zip(self.shard.group.stamps, stamps, strict=True)
                yield Chunk(ids, weights, state, dict(named))

    def send(self, size: int, *arguments: object) -> Iterator[np.ndarray]:
        """Calls the function, and yields its results.

        Args:
          size: How many row numbers to read at a time.
          *arguments: Passed to the function, before ids, weights, state and the
            group's stamps.
        """
        for start, end in self.shard.ranges(size):
            yield self._call("read_and_send", start, end, *arguments)

    def _call(self, method: str, start: int, end: int, *arguments: object) -> Any:
        with tf.device(self.shard.device):
            numbers = [np.int64(number) for number in (start, end, self._since)]
            found = self._packed.call(method, *numbers, *arguments, writes=False)
            return tf.nest.map_structure(lambda value: value.numpy(), found)

    # `_packed.call` calls the methods below.

    def read_and_send(
        self, start: Tensor, end: Tensor, since: Tensor, *arguments: Tensor
    ) -> Tensor:
        """Calls the function with the rows of `read`."""
        if self._function is None:
            raise ValueError("`function` must be given.")
        rows = self.read(start, end, since)
        return remote.call(
            self._function, *arguments, *rows, token=self._token, dtype=self._dtype
        )

    def read(self, start: Tensor, end: Tensor, since: Tensor) -> list[Tensor]:
        """Returns ids, weights, state and stamps of rows numbered `[start, end)`."""

        def found() -> list[Tensor]:
            return self._read(start, end, since)

        if not self._is_locked:
            return found()
        return self.shard.lock.guard(found, after=[start])

    def _read(self, start: Tensor, end: Tensor, since: Tensor) -> list[Tensor]:
        shard, rows = self.shard, self.shard.rows
        numbers = tf.range(start, end)
        if self._stamp:  # Usually few rows: nothing else is read of the others.
            is_new = rows.read(self._stamp, numbers) >= since
            numbers = tf.boolean_mask(numbers, is_new)
        ids = rows.read("ids", numbers)
        used = ids >= 0
        if shard.group.is_exact:  # Raw ids may be negative, as a freed row's is.
            used |= tf.equal(shard.index.search(ids), numbers)
        ids, numbers = tf.boolean_mask(ids, used), tf.boolean_mask(numbers, used)
        state = tf.zeros([tf.size(ids), 0])
        if self._with_state and shard.group.has_state:
            state = rows.read("state", numbers)
        stamps = [rows.read(name, numbers) for name in shard.group.stamps]
        return [ids, rows.read("weights", numbers), state, *stamps]
