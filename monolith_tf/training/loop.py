"""The outer loop: N steps at a time in one function, actions in between."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from monolith_tf.training import actions as actions_lib
from monolith_tf.training import run as run_lib


class NonFiniteLossError(ArithmeticError):
    """The loss became NaN or infinite; the message says at which rows."""


class InterruptedRun(KeyboardInterrupt):
    """The run was asked to stop, and left a checkpoint."""


def train(
    run: run_lib.Run,
    dataset: tf.data.Dataset,
    actions: Sequence[actions_lib.Action],
    *,
    steps_per_loop: int,
    explain: Callable[[int], str],
    on_steps: Callable[[run_lib.Run], None] | None = None,
) -> None:
    """Trains until the last step, the end of the data, or an action's word.

    Args:
      run: The run; its progress says where it begins.
      dataset: Batches of columns from there on.
      actions: What runs between steps, in this order where several are due.
      steps_per_loop: Steps in one function call, at most; actions are always on time.
      explain: Batch number -> where its rows come from and what is odd about them, for
        the error message about a loss that is not finite.
      on_steps: Told of every call of the loop, for a progress bar.

    Raises:
      NonFiniteLossError: If a loss is NaN or infinite.
      InterruptedRun: After SIGINT or SIGTERM, with a checkpoint written.
    """
    progress = run.progress
    store = run.step.network.store
    loop = tf.function(run.step.loop)
    iterator = iter(dataset)
    for action in actions:
        action.begin(run)
    with _signals() as interrupted:
        while not progress.stop and not _done(run):
            due = [(action, action.next_step(progress.step)) for action in actions]
            ends = [step for _, step in due if step is not None]
            ends.append(progress.step + steps_per_loop)
            if run.total_steps is not None:
                ends.append(run.total_steps)
            asked = min(ends) - progress.step
            result = _timed(run, loop, iterator, asked)
            if on_steps is not None:
                on_steps(run)
            if not bool(result.finite):
                raise NonFiniteLossError(
                    f"The loss of step {progress.step + 1} is not finite. "
                    f"{explain(progress.batch)} The step changed nothing; the last "
                    "checkpoint is as it was. Look at these rows, lower the learning "
                    "rate, or set `trainer.clip_norm`."
                )
            if interrupted():
                progress.stop = "interrupted"
                break
            if store.maintain(progress.step, int(time.time())).retrace:
                loop = tf.function(run.step.loop)  # The rows moved: trace anew.
            for action, step in due:
                if step == progress.step and not progress.stop:
                    action.act(run)
            if int(result.steps) < asked:
                break
        _end(run, actions)
        if progress.stop == "interrupted":
            raise InterruptedRun(
                f"Interrupted at step {progress.step}; a checkpoint was written. The "
                "same command goes on from there."
            )


def _done(run: run_lib.Run) -> bool:
    return run.total_steps is not None and run.progress.step >= run.total_steps


def _timed(run: run_lib.Run, loop: Any, iterator: Any, asked: int) -> Any:
    begin = time.perf_counter()
    result = loop(
        iterator,
        tf.constant(asked, tf.int64),
        tf.constant(int(time.time()), tf.int64),
    )
    steps = int(result.steps)  # Waits for the function to finish.
    run.progress.step += steps
    run.progress.batch += steps
    run.window.add(result, time.perf_counter() - begin)
    return result


def _end(run: run_lib.Run, actions: Sequence[actions_lib.Action]) -> None:
    why, run.progress.stop = run.progress.stop, ""
    for action in actions:
        # A checkpoint written at the end must not say that a resumed run is to stop.
        run.progress.stop = (
            "" if isinstance(action, actions_lib.SaveCheckpoint) else why
        )
        action.end(run)
    run.progress.stop = why


@contextlib.contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Turns the first SIGINT or SIGTERM into a flag; the second acts as ever."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    former: dict[int, Any] = {}

    def handler(number: int, frame: Any) -> None:
        del frame
        asked.set()
        signal.signal(number, former[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        former[number] = signal.signal(number, handler)
    try:
        yield asked.is_set
    finally:
        for caught, action in former.items():
            signal.signal(caught, action)
