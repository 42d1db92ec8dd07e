"""Work on the shards of a store: on all their devices at the same time."""

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
        for_all(list(of_device), run_one, stop)
    return {
        name: [found[name, place] for place in range(len(of_group))]
        for name, of_group in shards.items()
    }


def for_all(
    devices: Sequence[str],
    run_one: Callable[[str], None],
    stop: threading.Event | None = None,
) -> None:
    """Calls a function for all devices at the same time.

    Args:
      devices: The devices.
      run_one: Called with a device.
      stop: Set if the caller is interrupted while it waits.

    Raises:
      Exception: The first error of a call, once all calls have ended.
    """
    errors: list[BaseException] = []

    def run(device: str) -> None:
        try:
            run_one(device)
        except BaseException as error:  # Raised below.
            errors.append(error)

    # A process that ends does not wait for them: a machine that hangs never answers.
    threads = [
        threading.Thread(target=run, args=(device,), daemon=True) for device in devices
    ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException:
        if stop is not None:
            stop.set()
        raise
    # What was stopped only because of another error says nothing.
    errors.sort(key=lambda error: isinstance(error, StoppedError))
    if errors:
        raise errors[0]
