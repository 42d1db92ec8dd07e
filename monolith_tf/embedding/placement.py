"""The devices of an embedding store's shards, as plain data."""

import dataclasses

HOST = "/CPU:0"
"""Rows stay in host memory even if TensorFlow sees a GPU."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """The number of shards, and the device of each.

    Attributes:
      num_shards: Number of parts of every table, at least 1; ids are spread over them.
      devices: One device per shard, such as "/job:ps/task:0/device:CPU:0"; by default
        all shards are in this process' host memory.
      token: Token of `remote.call` in the processes of the devices; by default that of
        this process.
    """

    num_shards: int = 1
    devices: tuple[str, ...] | None = None
    token: str = ""

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
        """Returns the device of a shard."""
        return HOST if self.devices is None else self.devices[shard]
