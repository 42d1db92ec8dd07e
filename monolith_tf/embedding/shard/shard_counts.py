"""Reads the ids of a shard that wait for admission, and calls a function there."""

from collections.abc import Callable
from typing import Any
from typing import ClassVar

import numpy as np
import tensorflow as tf

from monolith_tf import remote
from monolith_tf.embedding.shard.bindable import Bindable
from monolith_tf.embedding.shard.bindable import Packed
from monolith_tf.embedding.shard.shard import Shard
from monolith_tf.types import Tensor


class ShardCounts(Bindable):
    """Sends exact counts to a function in the process of the shard's device.

    Args:
      shard: The shard, which counts exactly.
      function: A function for `remote.call`.
      token: Token of that.
    """

    own: ClassVar[tuple[str, ...]] = ("_exact",)
    shared: ClassVar[tuple[str, ...]] = ("_function", "_token")

    def __init__(self, shard: Shard, function: Callable[..., Any], token: str) -> None:
        self._exact: Any = shard.admission and shard.admission.exact
        self._function = function
        self._token = token
        self._device = shard.device
        with tf.device(shard.device):
            self._packed = Packed(self)

    def send(self, since: int, *arguments: object) -> None:
        """Calls the function.

        Args:
          since: Sends counts that changed in this period or later.
          *arguments: Passed to the function, before ids and counts.
        """
        with tf.device(self._device):
            self._packed.call(
                "export_and_send", np.int64(since), *arguments, writes=False
            ).numpy()

    def export_and_send(self, since: Tensor, *arguments: Tensor) -> Tensor:
        """Called by `_packed.call`."""
        counted = self._exact.changed(since)
        return remote.call(
            self._function, *arguments, *counted, token=self._token, dtype=tf.int64
        )
