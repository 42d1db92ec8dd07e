import os

import pytest

from monolith_tf.distribute import server
from monolith_tf.distribute.task import Task


@pytest.mark.parametrize(
    ("hosts", "cores", "threads"),
    [
        (["a"], 4, 4),
        (["a", "b"], 4, 4),
        (["a", "a", "b"], 4, 2),
        (["a", "a", "a"], 2, 1),
        (["b", "c"], 4, 0),
    ],
)
def test_the_workers_of_a_host_share_its_cores(monkeypatch, hosts, cores, threads):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    cluster = {
        "chief": ("z:1",),
        "ps": ("a:2",),
        "worker": tuple(f"{host}:{port}" for port, host in enumerate(hosts, 3)),
    }
    task = Task(kind="ps", index=0, cluster=cluster)
    assert server.intra_op_threads(task) == threads
