"""The results of a lookup, for `combine` and `apply_gradients`."""

from typing import NamedTuple

from monolith_tf.types import Tensor


class PulledShard(NamedTuple):
    """What a lookup found in one shard.

    Attributes:
      places: Which of the group's distinct ids it holds, int32; `()` for all of them.
      ids: Those ids, `[n]`.
      counts: Their occurrences, `[n]`, or `()`.
      numbers: Their row numbers, 0 for none, `[n]`.
      generation: Shows whether the numbers still hold when gradients arrive.
      weights: Their weights, if gradients return to the same machine, else `()`.
      version: Shows whether the weights still hold.
    """

    places: Tensor
    ids: Tensor
    counts: Tensor
    numbers: Tensor = ()
    generation: Tensor = ()
    weights: Tensor = ()
    version: Tensor = ()


class Pulled(NamedTuple):
    """A batch's rows, and everything needed to push their gradients.

    A structure of tensors: it goes through `tf.nest`, functions and loops.

    Attributes:
      rows: Group name -> weights of its distinct ids, `[unique, dim]`, for a
        `tf.GradientTape` to watch.
      inverses: Group name -> index of each occurrence in the distinct ids; `()` if
        `rows` has a row per occurrence.
      splits: Feature -> row splits, `()` if it has one id per example.
      shards: Group name -> what each shard found; empty outside of training.
      secs: Time of the lookup, in seconds, int64.
      batch: The batch's number, int64, if it may come again, else `()`.
    """

    rows: dict[str, Tensor]
    inverses: dict[str, Tensor]
    splits: dict[str, Tensor]
    shards: dict[str, tuple[PulledShard, ...]]
    secs: Tensor
    batch: Tensor = ()
