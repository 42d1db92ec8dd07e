"""The processes of a cluster job, as data."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """A parameter-server cluster. A config without one runs in one process.

    Attributes:
      ps: Parameter servers, which hold the embedding rows; at least 1.
      workers: Workers, which read the data and compute gradients; at least 1.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    ps: int = 1
    workers: int = 1

    def __post_init__(self) -> None:
        for name in ("ps", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"`{name}` must be at least 1. "
                    f"Received: {name}={getattr(self, name)}. Leave `cluster` out to "
                    "run in one process."
                )
