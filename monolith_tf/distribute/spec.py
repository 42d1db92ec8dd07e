"""The description of the processes of a cluster job."""

import dataclasses
from typing import Literal

from monolith_tf.distribute.heartbeat import BEAT_SECS


@dataclasses.dataclass(frozen=True, kw_only=True)
class PipelineSpec:
    """Which stages of steps a worker overlaps.

    By default, a worker finishes a step before it begins the next. With each stage, it
    uses rows that miss one more update.

    Attributes:
      prefetch: Batches whose rows are looked up ahead of their step, 0 or 1.
      deferred_push: Steps by which gradients of rows are pushed later, 0 or 1.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    prefetch: int = 0
    deferred_push: int = 0

    def __post_init__(self) -> None:
        for name in ("prefetch", "deferred_push"):
            if getattr(self, name) not in (0, 1):
                raise ValueError(
                    f"`{name}` must be 0 or 1. Received: {name}={getattr(self, name)}."
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """A parameter-server cluster. A config without one runs in one process.

    The environment variable `TF_CONFIG` says which task a process is; without it, a
    command runs in one process.

    Attributes:
      ps: Parameter servers, which hold the embedding rows; at least 1.
      workers: Workers, which read the data and compute gradients; at least 1.
      evaluator: Whether a separate process scores every checkpoint during training,
        oldest first. If it falls behind, checkpoints that `trainer.keep_checkpoints`
        removes are not scored; its log warns of that. Otherwise the workers score the
        eval split between training phases. With an evaluator,
        `trainer.eval_every_steps` and `eval_every_epochs` say when a checkpoint is
        written for it.
      mode: `exact`: updates of one parameter server's rows wait for each other.
        `hogwild`: they do not, and some are lost if workers update a row at once.
      pipeline: Which stages of steps a worker overlaps.
      min_part_bytes: Smallest block, in bytes, into which dense variables are cut; at
        most one block per parameter server.
      join_timeout: Seconds that the chief waits for the other tasks at the start.
      idle_timeout: Seconds that the other tasks wait for a chief, or for a lost chief
        to come back, before they end.
      hang_timeout: Seconds after which a task that is silent, while others are not, is
        replaced; at least 10. A stall of all tasks, or of their shared storage, does
        not count.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    ps: int = 1
    workers: int = 1
    evaluator: bool = False
    mode: Literal["exact", "hogwild"] = "exact"
    pipeline: PipelineSpec = PipelineSpec()
    min_part_bytes: int = 1 << 20
    join_timeout: float = 120.0
    idle_timeout: float = 600.0
    hang_timeout: float = 120.0

    def __post_init__(self) -> None:
        for name in ("ps", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"`{name}` must be at least 1. "
                    f"Received: {name}={getattr(self, name)}. Leave `cluster` out to "
                    "run in one process."
                )
        for name in ("min_part_bytes", "join_timeout", "idle_timeout"):
            if getattr(self, name) <= 0:
                raise ValueError(
                    f"`{name}` must be greater than 0. "
                    f"Received: {name}={getattr(self, name)}."
                )
        if self.hang_timeout < 5 * BEAT_SECS:
            raise ValueError(
                f"`hang_timeout` must be at least {5 * BEAT_SECS:g}, five beats of a "
                f"task. Received: hang_timeout={self.hang_timeout}."
            )
