"""A cluster job in processes on this machine, supervised until it ends."""

import contextlib
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import IO
from typing import Any

from absl import logging

from monolith_tf.distribute import task as task_lib
from monolith_tf.launch import actions as actions_lib
from monolith_tf.launch import guard
from monolith_tf.launch import heard as heard_lib
from monolith_tf.launch import supervisor as supervisor_lib
from monolith_tf.launch.states import Outcome
from monolith_tf.launch.states import TaskState

# Below the ephemeral ports: an outgoing connection could take a task's port while the
# task restarts.
_PORTS = range(15_000, 32_000)
_HOST = "127.0.0.1"
_TAIL_BYTES = 16_384

Watch = Callable[[Mapping[str, TaskState], Mapping[str, int]], None]


def local_tasks(*, ps: int, workers: int, evaluator: bool) -> list[task_lib.Task]:
    """Returns the tasks of a job on this machine, at free loopback ports.

    Args:
      ps: How many parameter servers.
      workers: How many workers.
      evaluator: Whether there is an evaluator.
    """
    free = _free_addresses(1 + ps + workers)
    cluster = {
        "chief": (free[0],),
        "ps": tuple(free[1 : 1 + ps]),
        "worker": tuple(free[1 + ps :]),
    }
    chief = task_lib.Task(kind="chief", index=0, cluster=cluster)
    tasks = [chief, *chief.others()]
    if evaluator:
        tasks.append(task_lib.Task(kind="evaluator", index=0, cluster=cluster))
    return tasks


class LocalCluster:
    """The processes of a job, and their logs at `<model_dir>/logs/<task>.log`.

    If this process is killed, a guard process ends the tasks; the chief writes a
    checkpoint.
    """

    def __init__(
        self,
        tasks: Sequence[task_lib.Task],
        command: Sequence[str],
        model_dir: str | os.PathLike[str],
        *,
        max_restarts: int,
        hang_timeout: float = 120.0,
        watch: Watch | None = None,
        poll_secs: float = 0.2,
    ) -> None:
        """Makes a cluster that is not running yet.

        Args:
          tasks: The job's tasks.
          command: The command of every task, which learns its task from `TF_CONFIG`.
          model_dir: The job's folder.
          max_restarts: As for `Supervisor`.
          hang_timeout: Seconds after which a task that is silent, while others are not,
            is killed and restarted.
          watch: Called regularly with task states and process ids.
          poll_secs: Seconds between checks of the processes.
        """
        self.logs = pathlib.Path(model_dir) / "logs"
        self._model_dir = model_dir
        self._hang_timeout = hang_timeout
        self._heard = heard_lib.Heard(
            model_dir, [task.name for task in tasks], hang_timeout=hang_timeout
        )
        self._command = list(command)
        self._supervisor = supervisor_lib.Supervisor(tasks, max_restarts=max_restarts)
        self._watch = watch or (lambda states, pids: None)
        self._poll_secs = poll_secs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._log_begins: dict[str, int] = {}
        self._guarded: IO[str] | None = None

    def run(self) -> Outcome:
        """Runs the job until it ends, or until SIGINT or SIGTERM end it.

        Raises:
          RosterError: If another launcher runs it.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        supervisor = self._supervisor
        signed_in = heard_lib.sign_in(self._model_dir, lambda: supervisor.given_up)
        with _signals() as interrupts, _guard() as self._guarded:
            try:
                self._do(supervisor.begin(time.monotonic()))
                while supervisor.outcome is None:
                    heard_lib.check_alone(self._model_dir, signed_in)
                    while interrupts:
                        interrupts.pop()
                        self._heard.look(self._pids(), at_once=True)
                        trains = self._heard.trains
                        now = time.monotonic()
                        self._do(supervisor.interrupt(now, trains=trains))
                    self._collect()
                    self._listen()
                    self._do(supervisor.tick(time.monotonic()))
                    self._watch(supervisor.tasks, self._pids())
                    if supervisor.outcome is None:
                        time.sleep(self._poll_secs)
            finally:
                for process in self._processes.values():
                    _kill(process)
                    self._write_to_guard(f"- {process.pid}")
                with contextlib.suppress(OSError):
                    signed_in.close(state="ended")
        return supervisor.outcome

    def log_tail(self, name: str, lines: int = 15) -> list[str]:
        """Returns the last lines that a task's last process wrote."""
        with contextlib.suppress(OSError), self._log(name).open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_begins.get(name, 0), end - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace").splitlines()[-lines:]
        return []

    def _pids(self) -> dict[str, int]:
        return {name: process.pid for name, process in self._processes.items()}

    def _log(self, name: str) -> pathlib.Path:
        return self.logs / f"{name}.log"

    def _collect(self) -> None:
        """Reports all processes that have ended to the supervisor."""
        for name, process in list(self._processes.items()):
            code = process.poll()
            if code is not None:
                del self._processes[name]
                self._write_to_guard(f"- {process.pid}")
                self._do(self._supervisor.ended(name, code, time.monotonic()))

    def _listen(self) -> None:
        """Reports to the supervisor what the tasks report, and which are silent."""
        self._heard.look(self._pids())
        for name in self._heard.hung:
            self._do(self._supervisor.hangs(name, self._hang_timeout))
        if self._heard.ps_lost:
            self._do(self._supervisor.lost_server(time.monotonic()))

    def _do(self, actions: Sequence[actions_lib.Action]) -> None:
        for action in actions:
            if isinstance(action, actions_lib.Start):
                self._start(self._supervisor.tasks[action.name].task)
            elif isinstance(action, actions_lib.Say):
                logging.info("%s", action.text)
            elif action.name in self._processes:
                process = self._processes[action.name]
                if action.signal == signal.SIGKILL:
                    _kill(process)
                else:
                    process.send_signal(action.signal)

    def _start(self, task: task_lib.Task) -> None:
        environment = {
            **os.environ,
            task_lib.VARIABLE: task.to_tf_config(),
            "PYTHONUNBUFFERED": "1",
        }
        with self._log(task.name).open("ab") as log:
            self._log_begins[task.name] = log.tell()
            self._processes[task.name] = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                # Ctrl-C in the terminal must reach only the launcher.
                start_new_session=True,
            )
        self._write_to_guard(f"+ {self._processes[task.name].pid} {task.kind}")

    def _write_to_guard(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # The job does not need it.
            print(line, file=self._guarded, flush=True)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kills a process and its children."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def _guard() -> Iterator[IO[str]]:
    """Starts the guard, which ends the tasks if this process is killed.

    Yields its standard input.
    """
    with subprocess.Popen(
        [sys.executable, "-I", "-S", str(guard.__file__)],
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        yield process.stdin  # type: ignore[misc]


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects the signals that ask for the end of the job."""
    caught: list[int] = []
    former: dict[int, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # `nohup` ignores it.
            former[number] = signal.signal(number, lambda n, _: caught.append(n))
    try:
        yield caught
    finally:
        for each, handler in former.items():
            signal.signal(each, handler)


def _free_addresses(count: int) -> list[str]:
    """Returns loopback addresses on which nothing listens."""
    found = []
    for port in random.sample(_PORTS, min(100 * count, len(_PORTS))):
        with contextlib.suppress(OSError), socket.socket() as probe:
            # TensorFlow's servers listen on all interfaces.
            probe.bind(("", port))
            found.append(f"{_HOST}:{port}")
        if len(found) == count:
            return found
    raise OSError(f"There are no {count} free ports on this machine.")
