"""Decides what a launcher does when tasks end: events in, actions out, no processes.

The chief and the parameter servers restart together: the rows are in the servers'
memory, and only a chief that restarts restores them from the checkpoint. Workers and an
evaluator restart alone.
"""

import math
import signal
from collections.abc import Mapping
from collections.abc import Sequence

from monolith_tf.distribute import exits
from monolith_tf.distribute.task import Task
from monolith_tf.launch.actions import Action
from monolith_tf.launch.actions import Say
from monolith_tf.launch.actions import Send
from monolith_tf.launch.actions import Start
from monolith_tf.launch.states import Outcome
from monolith_tf.launch.states import Retries
from monolith_tf.launch.states import TaskState
from monolith_tf.launch.states import how_it_ended

Plan = Sequence[tuple[float, signal.Signals]]

_LEFT_EARLY_SECS = 10.0
_STOP: Plan = ((0.0, signal.SIGTERM), (10.0, signal.SIGKILL))
# The task itself sees the chief's end, and logs it.
_LET_END: Plan = ((5.0, signal.SIGTERM), (15.0, signal.SIGKILL))
# A chief that lost a parameter server ends itself.
_LET_CHIEF_END: Plan = ((30.0, signal.SIGKILL),)
# The chief has reported that it is done, and only cleans up.
_LET_DONE_CHIEF_END: Plan = ((60.0, signal.SIGTERM), (70.0, signal.SIGKILL))
_CHECKPOINT_AND_STOP: Plan = ((0.0, signal.SIGTERM), (300.0, signal.SIGKILL))
_STOP_CHIEF: Plan = ((0.0, signal.SIGTERM), (30.0, signal.SIGKILL))
_KILL: Plan = ((0.0, signal.SIGKILL),)


class Supervisor:
    """Decides which tasks to start and to stop.

    Every method takes the current time, in seconds of a monotonic clock, and returns
    the actions to take now.

    Attributes:
      tasks: Task name -> its state.
      outcome: How the job ended; None before all tasks have ended.
    """

    def __init__(self, tasks: Sequence[Task], *, max_restarts: int) -> None:
        """Makes a supervisor.

        Args:
          tasks: The job's tasks.
          max_restarts: How often in a row a worker, an evaluator, or the chief with its
            parameter servers, is restarted; not negative.
        """
        if max_restarts < 0:
            raise ValueError(
                "`max_restarts` must not be negative. "
                f"Received: max_restarts={max_restarts}."
            )
        self.tasks: Mapping[str, TaskState] = {t.name: TaskState(t) for t in tasks}
        self.outcome: Outcome | None = None
        self._core = [s for s in self._all() if s.task.kind in ("chief", "ps")]
        self._chief = next(s for s in self._core if s.task.kind == "chief")
        self._max_restarts = max_restarts
        self._retries = {
            name: Retries() for name in ["chief", *(s.task.name for s in self._all())]
        }
        self._result: Outcome | None = None
        self._recover_at: float | None = None
        self._done = False  # Whether a task has seen that the chief is done.
        self._interrupts = 0
        self._checkpoints = False  # Whether the chief was asked to write one and end.
        self._actions: list[Action] = []

    def begin(self, now: float) -> list[Action]:
        """Starts the job."""
        for state in self._all():
            self._start(state, now)
        return self._taken()

    def ended(self, name: str, code: int, now: float) -> list[Action]:
        """Handles the end of a process.

        Args:
          name: The name of its task.
          code: Its exit code, or minus the signal that ended it.
          now: The time.
        """
        state = self.tasks[name]
        was_asked = state.state == "stopping"
        state.state, state.plan, state.due = "ended", [], math.inf
        kind = state.task.kind
        if self._result is not None and (kind != "evaluator" or was_asked):
            pass
        elif kind == "chief":
            self._chief_ended(code, now)
        elif was_asked or (self._interrupts and not self._checkpoints):
            pass
        elif self._interrupts:
            # The chief checkpoints once the steps under way are taken, by any worker.
            if kind == "worker" and code < 0:
                self._retry(state, f"{name} {how_it_ended(code)}", now)
        elif code == exits.WRONG_USE:
            self._finish(code, f"{name} {how_it_ended(code)}.", name, now)
        elif code == exits.DONE:
            self._done = True
            if self._chief.alive:
                self._stop(self._chief, _LET_DONE_CHIEF_END, now)
            else:  # It was killed after it had finished.
                self._finish(exits.DONE, "", None, now)
        elif code == exits.CHIEF_GONE:
            # The chief may come back. If it was never gone, the task must restart.
            state.due = now + _LEFT_EARLY_SECS
        elif self._done and kind != "evaluator":
            pass
        elif kind == "ps":
            self._recover(name, f"{name} {how_it_ended(code)}", now)
        else:
            self._retry(state, f"{name} {how_it_ended(code)}", now)
        self._settle(now)
        return self._taken()

    @property
    def given_up(self) -> list[str]:
        """The tasks that are not restarted."""
        return [s.task.name for s in self._all() if s.state == "lost"]

    def hangs(self, name: str, secs: float) -> list[Action]:
        """Handles a task that was silent for `secs` while other tasks were not."""
        state = self.tasks[name]
        if state.state == "running":
            self._say(
                f"{name} was silent for {secs:g} s while other tasks were not; ending "
                "it by SIGKILL."
            )
            self._send(state, signal.SIGKILL)
        return self._taken()

    def lost_server(self, now: float) -> list[Action]:
        """Handles the chief's report that a parameter server is lost."""
        if self._chief.state == "running" and self._result is None:
            self._recover("chief", "The chief lost a parameter server", now)
        self._settle(now)
        return self._taken()

    def interrupt(self, now: float, *, trains: bool = True) -> list[Action]:
        """Ends the job: the first time with a checkpoint, the second time at once.

        Args:
          now: The time.
          trains: Whether the chief has begun to train. If not, it writes no checkpoint.
        """
        self._interrupts += 1
        interrupted = Outcome(exits.INTERRUPTED, "Interrupted.")
        if self._interrupts > 1:
            self._recover_at = None
            self._result = interrupted
            for state in self._all():
                self._stop(state, _KILL, now)
        elif self._result is not None or not self._chief.alive:
            self._recover_at = None
            self._result = interrupted
            for state in self._all():
                self._stop(state, _STOP, now)
        else:
            self._say(
                "Interrupted; the chief writes a checkpoint. Again: ends at once."
                if trains
                else "Interrupted; ending the tasks. Again: ends at once."
            )
            self._checkpoints = trains
            for state in self._all():
                if state is self._chief:
                    self._stop(state, _CHECKPOINT_AND_STOP, now)
                elif trains and self._is_waiting_worker(state):
                    state.due = now  # For the steps that are under way.
                elif not state.alive or state.task.kind == "evaluator":
                    self._stop(state, _STOP, now)
        self._settle(now)
        return self._taken()

    def tick(self, now: float) -> list[Action]:
        """Does what is due at a time."""
        for state in self._all():
            while state.plan and state.plan[0][0] <= now:
                self._send(state, state.plan.pop(0)[1])
            if state.due > now:
                continue
            state.due = math.inf
            if state.state == "waiting":
                self._start(state, now)
            elif state.state == "ended" and self._chief.state == "running":
                name = state.task.name
                why = f"{name} left while the chief runs"
                if state.task.kind == "ps":
                    self._recover(name, why, now)
                else:
                    self._retry(state, why, now)
        self._settle(now)
        return self._taken()

    def _chief_ended(self, code: int, now: float) -> None:
        recovering = self._recover_at is not None
        if code == exits.DONE or (self._done and code < 0):
            self._finish(exits.DONE, "", None, now)
        elif self._interrupts and code == exits.INTERRUPTED:
            message = "Interrupted; the chief has written a checkpoint."
            self._finish(exits.INTERRUPTED, message, None, now)
        elif self._interrupts and code == -signal.SIGTERM:
            message = "Interrupted; the chief did not train, and wrote no checkpoint."
            self._finish(exits.INTERRUPTED, message, None, now)
        elif self._interrupts:
            message = f"The chief {how_it_ended(code)} before it wrote a checkpoint."
            self._finish(exits.FAILED, message, "chief", now)
        elif recovering:
            pass  # Whatever its exit code is, it has lost its parameter servers.
        elif code == exits.PS_LOST or code < 0:
            self._recover("chief", f"The chief {how_it_ended(code)}", now)
        else:
            self._finish(code, f"The chief {how_it_ended(code)}.", "chief", now)

    def _recover(self, culprit: str, why: str, now: float) -> None:
        """Restarts the chief and the parameter servers."""
        if self._recover_at is not None:
            return
        retries = self._retries["chief"]
        backoff = retries.next(now, self._max_restarts)
        if backoff is None:
            message = f"{why}, after {retries.count} restarts in a row."
            self._finish(exits.FAILED, message, culprit, now)
            return
        self._say(
            f"{why}; the chief and the parameter servers restart from the last "
            f"checkpoint ({retries.count} of {self._max_restarts})."
        )
        self._recover_at = now + backoff
        for state in self._core:
            self._stop(state, _LET_CHIEF_END if state is self._chief else _STOP, now)

    def _retry(self, state: TaskState, why: str, now: float) -> None:
        """Restarts a worker or an evaluator, or continues without it."""
        retries = self._retries[state.task.name]
        backoff = retries.next(now, self._max_restarts)
        if backoff is not None:
            state.state, state.due = "waiting", now + backoff
            count = f"{retries.count} of {self._max_restarts}"
            self._say(f"{why}; it restarts in {backoff:g} s ({count}).")
            return
        state.state = "lost"
        why = f"{why}, after {retries.count} restarts in a row"
        left = sum(s.task.kind == "worker" and s.state != "lost" for s in self._all())
        if state.task.kind == "worker" and not left:
            message = f"{why}, and no other worker is left."
            self._finish(exits.FAILED, message, state.task.name, now)
        elif self._result is None:
            self._say(f"{why}; the job continues without it.")

    def _finish(self, code: int, message: str, culprit: str | None, now: float) -> None:
        """Sets how the job ends; the others are stopped after the chief."""
        self._recover_at = None
        self._result = Outcome(code, message, culprit)
        self._stop(self._chief, _STOP_CHIEF, now)

    def _settle(self, now: float) -> None:
        """Does what must wait until other tasks have ended."""
        if self._recover_at is not None and not any(s.alive for s in self._core):
            at, self._recover_at = self._recover_at, None
            for state in self._all():
                if not state.alive:
                    state.state, state.due = "waiting", at
        if self._result is None or self._chief.alive:
            return
        done = self._result.code == exits.DONE
        for state in self._all():
            if not (done and state.task.kind == "evaluator"):
                self._stop(state, _LET_END if done else _STOP, now)
        if not any(s.alive or s.state == "waiting" for s in self._all()):
            self.outcome = self._result
            if self.outcome.code == exits.DONE:
                self.outcome = self._without_evaluation() or self.outcome

    def _without_evaluation(self) -> Outcome | None:
        for state in self._all():
            if state.task.kind == "evaluator" and state.state == "lost":
                message = f"Training is done, but {state.task.name} died too often."
                return Outcome(exits.FAILED, message, state.task.name)
        return None

    def _is_waiting_worker(self, state: TaskState) -> bool:
        return state.task.kind == "worker" and state.state == "waiting"

    def _start(self, state: TaskState, now: float) -> None:
        state.state, state.due, state.plan = "running", math.inf, []
        state.restarts += 1
        self._retries[state.task.name].begun = now
        self._actions.append(Start(state.task.name))

    def _stop(self, state: TaskState, plan: Plan, now: float) -> None:
        """Ends a process by signals at given times; keeps the plan that ends sooner."""
        if not state.alive:
            if state.state == "waiting":
                state.state = "ended"
            state.due = math.inf
            return
        coming = [(now + delay, number) for delay, number in plan]
        if state.state == "stopping" and state.plan and state.plan[-1] <= coming[-1]:
            return
        state.state, state.plan = "stopping", coming
        while state.plan and state.plan[0][0] <= now:
            self._send(state, state.plan.pop(0)[1])

    def _send(self, state: TaskState, number: signal.Signals) -> None:
        self._actions.append(Send(state.task.name, number))

    def _say(self, text: str) -> None:
        self._actions.append(Say(text))

    def _all(self) -> list[TaskState]:
        return list(self.tasks.values())

    def _taken(self) -> list[Action]:
        taken, self._actions = self._actions, []
        return taken
