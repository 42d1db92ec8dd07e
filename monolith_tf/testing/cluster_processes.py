"""A cluster of real processes on this machine, for tests that kill some of them."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

from monolith_tf.distribute.task import Kind
from monolith_tf.distribute.task import Task


class ClusterProcesses:
    """Starts `monolith-tf train` for each task; as a context, kills them on exit.

    Attributes:
      tasks: Task name -> the task.
      model_dir: The job's folder.

    Args:
      config: The config's path.
      model_dir: The job's folder; its `logs` folder gets the logs.
      *overrides: As on the command line.
      ps: Number of parameter servers.
      workers: Number of workers.
      timeout: Maximum seconds of each wait.
    """

    def __init__(
        self,
        config: str | os.PathLike[str],
        model_dir: pathlib.Path,
        *overrides: str,
        ps: int = 1,
        workers: int = 1,
        timeout: float = 240.0,
    ) -> None:
        self.model_dir = model_dir
        self._timeout = timeout
        self._command = [
            *(sys.executable, "-m", "monolith_tf", "train", str(config)),
            *(f"model_dir={model_dir}", f"cluster.ps={ps}"),
            *(f"cluster.workers={workers}", "cluster.join_timeout=100", *overrides),
        ]
        addresses = iter(free_addresses(1 + ps + workers))
        cluster = {
            "chief": (next(addresses),),
            "ps": tuple(next(addresses) for _ in range(ps)),
            "worker": tuple(next(addresses) for _ in range(workers)),
        }
        chief = Task(kind="chief", index=0, cluster=cluster)
        evaluator = Task(kind="evaluator", index=0, cluster=cluster)
        self.tasks = {task.name: task for task in (*chief.others(), chief, evaluator)}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._former: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "ClusterProcesses":
        return self

    def __exit__(self, *error: object) -> None:
        for process in [*self._processes.values(), *self._former]:
            process.kill()
            process.wait()

    def start(self, *names: str) -> None:
        """Starts tasks by name; by default all except the evaluator."""
        kinds: tuple[Kind, ...] = ("ps", "worker", "chief")
        for name in names or [n for n, t in self.tasks.items() if t.kind in kinds]:
            environment = os.environ | {
                "TF_CONFIG": self.tasks[name].to_tf_config(),
                "TF_CPP_MIN_LOG_LEVEL": "3",
            }
            self._log(name).parent.mkdir(parents=True, exist_ok=True)
            if name in self._processes:
                self._former.append(self._processes[name])
            with self._log(name).open("ab") as log:
                self._processes[name] = subprocess.Popen(
                    self._command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Sends a signal to a task."""
        self._processes[name].send_signal(number)

    def wait(self, name: str) -> int:
        """Waits for a task to end; returns its exit code."""
        return self._processes[name].wait(self._timeout)

    def wait_all(self) -> dict[str, int]:
        """Waits for all tasks that were started; returns their exit codes."""
        return {name: self.wait(name) for name in self._processes}

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Waits until a condition holds, while the chief runs if it was started.

        Raises:
          RuntimeError: If the chief ends first.
          TimeoutError: If the condition does not hold in time.
        """
        deadline = time.monotonic() + self._timeout
        while not condition():
            chief = self._processes.get("chief")
            if chief is not None and chief.poll() is not None:
                raise RuntimeError(f"The chief ended:\n{self.log('chief')}")
            if time.monotonic() > deadline:
                said = self.log("chief") if chief else "nothing; it was not started"
                raise TimeoutError(f"The chief says:\n{said}")
            time.sleep(0.02)

    def log(self, name: str) -> str:
        """Returns the output of a task."""
        return self._log(name).read_text(encoding="utf-8", errors="replace")

    def _log(self, name: str) -> pathlib.Path:
        return self.model_dir / "logs" / f"{name}.log"


def free_addresses(count: int) -> list[str]:
    """Returns addresses of free ports of this machine."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return ["{}:{}".format(*server.getsockname()) for server in held]
    finally:
        for server in held:
            server.close()
