"""Work on the shards of a store: on all their devices at the same time."""

import concurrent.futures
import threading
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TypeVar

from monolith_tf.embedding.shard.shard import Shard

_Result = TypeVar("_Result")


class StoppedError(RuntimeError):
    """Work that was stopped before its end."""


def run(
    shards: Mapping[str, Sequence[Shard]],
    work: Callable[[str, int, Shard], _Result],
    stop: threading.Event,
) -> dict[str, list[_Result]]:
    """Calls a function for all shards, one after another on each device.

    Args:
      shards: Group name -> shards.
      work: Called with the group's name, the shard's place in it, and the shard.
      stop: Set if one of the calls fails, so that the others end soon.

    Returns:
      Group name -> results, in the order of the shards.
    """
    found: dict[tuple[str, int], _Result] = {}
    of_device: dict[str, list[tuple[str, int, Shard]]] = {}
    for name, of_group in shards.items():
        for place, shard in enumerate(of_group):
            of_device.setdefault(shard.device, []).append((name, place, shard))

    def run_one(device: str) -> None:
        try:
            for name, place, shard in of_device[device]:
                found[name, place] = work(name, place, shard)
        except BaseException:
            stop.set()
            raise

    if len(of_device) == 1:
        run_one(*of_device)
    else:
        _run_all(run_one, list(of_device), stop)
    return {
        name: [found[name, place] for place in range(len(of_group))]
        for name, of_group in shards.items()
    }


def _run_all(
    run_one: Callable[[str], None], devices: list[str], stop: threading.Event
) -> None:
    with concurrent.futures.ThreadPoolExecutor(len(devices)) as pool:
        try:
            running = [pool.submit(run_one, device) for device in devices]
            done = concurrent.futures.wait(running).done
        except BaseException:
            stop.set()
            raise
    errors = [one.exception() for one in running if one in done]
    # What was stopped only because of another error says nothing.
    errors.sort(key=lambda error: isinstance(error, StoppedError))
    for error in errors:
        if error is not None:
            raise error
