"""Parameter servers as real processes on this machine, for tests and benchmarks.

Unlike `cluster_processes`, there are no other tasks: this process is the chief.
"""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import tensorflow as tf

from monolith_tf import remote
from monolith_tf.distribute import server
from monolith_tf.distribute.task import Task
from monolith_tf.embedding.placement import Placement
from monolith_tf.testing import cluster_processes

_COMMAND = "from monolith_tf.testing import server_processes as s; s.serve()"


class ServerProcesses:
    """Starts parameter servers and connects this process; kills them on exit.

    Attributes:
      processes: The processes.
      placement: Puts one shard of a store on each.

    Args:
      count: Number of servers.
    """

    def __init__(self, count: int = 2) -> None:
        chief, worker, *servers = cluster_processes.free_addresses(2 + count)
        cluster = {"chief": (chief,), "worker": (worker,), "ps": tuple(servers)}
        self.processes: list[subprocess.Popen[str]] = []
        for index in range(count):
            task = Task(kind="ps", index=index, cluster=cluster)
            process = subprocess.Popen(
                [sys.executable, "-c", _COMMAND],
                env=os.environ | {"TF_CONFIG": task.to_tf_config()},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self.processes.append(process)
        # A process that failed to start prints nothing.
        lines = [str(p.stdout and p.stdout.readline()) for p in self.processes]
        (token,) = {line.strip() for line in lines}
        if not token:
            raise RuntimeError("A server did not start.")
        tf.config.experimental_connect_to_cluster(
            tf.train.ClusterSpec({"ps": servers, "chief": [chief]}), job_name="chief"
        )
        devices = tuple(f"/job:ps/task:{i}/device:CPU:0" for i in range(count))
        self.placement = Placement(num_shards=count, devices=devices, token=token)

    def __enter__(self) -> "ServerProcesses":
        return self

    def __exit__(self, *error: object) -> None:
        for number in range(len(self.processes)):
            self.kill(number)
        # As `ParameterServerStrategy` does: to save a `tf.train.Checkpoint` later on
        # would wait for operations on the servers, for ever.
        os.environ["TF_PS_DISABLE_ASYNC_EXECUTOR_GLOBALLY"] = "True"

    def kill(self, number: int) -> None:
        """Kills a server."""
        process = self.processes[number]
        process.send_signal(signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def serve() -> None:
    """Serves, in a process of `ServerProcesses`, until that one ends."""
    token = remote.local_token()
    task = Task.from_env(os.environ)
    if task is None:
        raise ValueError("`ServerProcesses` must start this process.")
    running = server.start(task)
    print(token, flush=True)
    sys.stdin.read()
    del running


@remote.function
def described(name: bytes, numbers: np.ndarray) -> bytes:
    """Returns, as JSON, what was received and where."""
    found = {"pid": os.getpid(), "name": name.decode(), "sum": int(numbers.sum())}
    return json.dumps(found).encode()


@remote.function
def doubled(numbers: np.ndarray) -> np.ndarray:
    """Returns twice the numbers.

    Raises:
      ValueError: If one is negative.
    """
    if (numbers < 0).any():
        raise ValueError(f"`numbers` must not be negative. Received: {numbers}.")
    return 2 * numbers
