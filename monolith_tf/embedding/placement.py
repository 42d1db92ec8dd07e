"""Where the parts of an embedding store live, as plain data."""

import dataclasses

HOST = "/CPU:0"
"""Rows stay in host memory also where TensorFlow sees a GPU."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """How many shards there are, and the device of each.

    Attributes:
      num_shards: Parts that every table's ids are spread over, at least 1.
      devices: One device per shard, such as "/job:ps/task:0/device:CPU:0"; this
        process' host memory when not given.
    """

    num_shards: int = 1
    devices: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.num_shards < 1:
            raise ValueError(
                "`num_shards` must be at least 1. "
                f"Received: num_shards={self.num_shards}."
            )
        if self.devices is not None and len(self.devices) != self.num_shards:
            raise ValueError(
                "`devices` must name one device per shard. "
                f"Received: num_shards={self.num_shards}, devices={self.devices}."
            )

    def device(self, shard: int) -> str:
        """The device of a shard."""
        return HOST if self.devices is None else self.devices[shard]
