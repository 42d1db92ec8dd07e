"""The outer loop: N steps at a time in one function, actions in between."""

import contextlib
import signal
import threading
import time
import types
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from monolith_tf.distribute import exits
from monolith_tf.training import actions as actions_lib
from monolith_tf.training import memory
from monolith_tf.training import run as run_lib
from monolith_tf.training import stepper as stepper_lib


class NonFiniteLossError(ArithmeticError):
    """The loss became NaN or infinite; the message names the rows."""


class InterruptedRun(KeyboardInterrupt):
    """The run was asked to stop, and wrote a checkpoint."""


def train(
    run: run_lib.Run,
    stepper: stepper_lib.Stepper,
    actions: Sequence[actions_lib.Action],
    *,
    steps_per_loop: int,
    explain: Callable[[int], str],
    on_steps: Callable[[run_lib.Run], None] | None = None,
) -> None:
    """Trains until the last step or the end of the data, or until an action stops it.

    Args:
      run: The run; its progress says where it begins.
      stepper: Takes the steps.
      actions: Actions between steps; those due at the same step run in this order.
      steps_per_loop: Most steps in one function call; actions are always on time.
      explain: Batch number -> where its rows come from and what is wrong with them, for
        the error message about a loss that is not finite.
      on_steps: Called after every call of the loop, for a progress bar.

    Raises:
      NonFiniteLossError: If a loss is NaN or infinite.
      OutOfMemoryError: If a step runs out of memory.
      InterruptedRun: After SIGINT or SIGTERM, with a checkpoint written.
      ConnectionError: If the run was interrupted, but no checkpoint could be written,
        since the workers of a cluster do not return.
    """
    progress = run.progress
    for action in actions:
        action.begin(run)
    agenda = _Agenda(run, actions, steps_per_loop, stepper.maintain_every)
    agenda.catch_up()
    with (
        contextlib.ExitStack() as at_end,
        _signals() as interrupted,
        _no_new_start(interrupted),
    ):
        at_end.callback(run.drop_copy)
        while not progress.stop and not _done(run):
            run.save_wanted()
            with _memory_explained(run):
                taken = stepper.take(run, agenda.plan())
            _count(run, taken, explain, on_steps)
            if interrupted():
                break
            if stepper.is_quiet and agenda.maintenance_is_due():
                run.step.network.store.maintain(progress.step, int(time.time()))
                agenda.maintained()
            agenda.act(stepper.is_quiet)
            if int(taken.result.steps) < taken.asked:
                break
        with _memory_explained(run):
            finished = stepper.finish()
        for taken in finished:
            _count(run, taken, explain, on_steps)
        if interrupted():  # Perhaps only while running steps finished.
            progress.stop = run_lib.INTERRUPTED
        if progress.is_interrupted:
            agenda.act_quickly()
        _end(run, actions)
        if progress.stop == run_lib.INTERRUPTED:
            path = None if run.saved is None else run.saved.path
            raise InterruptedRun(
                f"Interrupted at step {progress.step}; wrote the checkpoint {path}. "
                "The same command resumes from there."
            )


class _Agenda:
    """Decides what is due at which step."""

    def __init__(
        self,
        run: run_lib.Run,
        actions: Sequence[actions_lib.Action],
        steps_per_loop: int,
        maintain_every: int,
    ) -> None:
        self._run = run
        self._actions = actions
        self._steps_per_loop = steps_per_loop
        self._maintain_every = maintain_every
        self._due: dict[int, int] = {}  # Place of an action -> step.
        self._maintain_at = run.progress.step + maintain_every

    def plan(self) -> stepper_lib.Plan:
        """Returns how far steps may go before something is due."""
        step = self._run.progress.step
        for place, action in enumerate(self._actions):
            at = action.next_step(step)
            if at is not None:
                # An overdue action stays due.
                self._due[place] = min(at, self._due.get(place, at))
        stops = [
            at for place, at in self._due.items() if self._actions[place].needs_quiet
        ]
        stops.append(self._maintain_at)
        if self._run.total_steps is not None:
            stops.append(self._run.total_steps)
        return stepper_lib.Plan(self._end, min(stops))

    def _end(self, step: int) -> int:
        ends = [action.next_step(step) for action in self._actions]
        ends += [step + self._steps_per_loop, self._run.total_steps]
        return min(end for end in ends if end is not None)

    def act(self, is_quiet: bool) -> None:
        """Runs the actions that are due; some only when no step is running."""
        progress = self._run.progress
        for place, action in enumerate(self._actions):
            if self._due.get(place, progress.step + 1) > progress.step:
                continue
            if (is_quiet or not action.needs_quiet) and not progress.stop:
                action.act(self._run)
                del self._due[place]

    def catch_up(self) -> None:
        """Runs the actions that an interrupted run left undone at its last step."""
        progress = self._run.progress
        overdue, progress.overdue = progress.overdue, []
        for action in self._actions:
            if type(action).__name__ in overdue and not progress.stop:
                action.act(self._run)

    def act_quickly(self) -> None:
        """Runs due, quick actions at an interruption, and saves the other due ones."""
        progress = self._run.progress
        for place, at in self._due.items():
            action = self._actions[place]
            if at > progress.step:
                continue
            if action.is_quick:
                action.act(self._run)
            elif not isinstance(action, actions_lib.SaveCheckpoint):
                progress.overdue.append(type(action).__name__)

    def maintenance_is_due(self) -> bool:
        """Returns whether the store's maintenance is due."""
        return self._run.progress.step >= self._maintain_at

    def maintained(self) -> None:
        """Called after the store's maintenance."""
        self._maintain_at = self._run.progress.step + self._maintain_every


def _count(
    run: run_lib.Run,
    taken: stepper_lib.StepsTaken,
    explain: Callable[[int], str],
    on_steps: Callable[[run_lib.Run], None] | None,
) -> None:
    """Adds steps to the run."""
    steps = int(taken.result.steps)
    run.progress.step += steps
    run.progress.batch += steps
    run.progress.examples += int(taken.result.examples)
    for feature, clipped in taken.result.clipped.items():
        former = run.progress.clipped.get(feature, 0)
        run.progress.clipped[feature] = former + int(clipped)
    run.window.add(taken.result, taken.seconds)
    if on_steps is not None:
        on_steps(run)
    if not bool(taken.result.finite):
        raise NonFiniteLossError(
            f"The loss of step {run.progress.step + 1} is not finite. "
            f"{explain(taken.batch + steps)} The step changed nothing, and the last "
            "checkpoint is unchanged. Check these rows, lower the learning rate, or "
            "set `trainer.clip_norm`."
        )


def _done(run: run_lib.Run) -> bool:
    return run.total_steps is not None and run.progress.step >= run.total_steps


def _end(run: run_lib.Run, actions: Sequence[actions_lib.Action]) -> None:
    why = run.progress.stop
    try:
        for action in actions:
            action.end(run)
    except Exception:
        # Keeps the last step even if an action fails after it.
        _save(run)
        raise
    _save(run)
    run.progress.stop = why


def _save(run: run_lib.Run) -> None:
    """Writes the last checkpoint, which must not stop a resumed run."""
    run.progress.stop = ""
    run.save_wanted()


@contextlib.contextmanager
def _memory_explained(run: run_lib.Run) -> Iterator[None]:
    """Adds to an out-of-memory error what uses memory, and what to do."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise memory.OutOfMemoryError(memory.explain(run, error)) from error


@contextlib.contextmanager
def _no_new_start(interrupted: Callable[[], bool]) -> Iterator[None]:
    """Ends an interrupted run that would otherwise restart with other workers."""
    try:
        yield
    except exits.StuckError as error:
        if not interrupted():
            raise
        raise ConnectionError(
            f"Interrupted, but no checkpoint could be written: {error} The same "
            "command resumes from the last checkpoint."
        ) from error


@contextlib.contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Turns the first SIGINT or SIGTERM into a flag.

    The second one gets the previous handler.
    """
    # No `threading.Event`: a handler would wait for its lock forever if it interrupts
    # another handler that sets the event in the same thread.
    asked: list[int] = []

    def interrupted() -> bool:
        return bool(asked)

    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    former: dict[int, Any] = {}

    def handler(number: int, frame: types.FrameType | None) -> None:
        del frame
        asked.append(number)
        signal.signal(number, former[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        former[number] = signal.signal(number, handler)
    try:
        yield interrupted
    finally:
        for caught, action in former.items():
            signal.signal(caught, action)
