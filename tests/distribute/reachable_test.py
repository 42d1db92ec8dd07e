import socket

import pytest

from monolith_tf.distribute import reachable
from monolith_tf.distribute.task import Task


@pytest.fixture
def task():
    """A chief with a worker that listens, and parameter servers that do not."""
    with socket.create_server(("127.0.0.1", 0)) as worker:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            gone = f"127.0.0.1:{closed.getsockname()[1]}"
        addresses = {
            "chief": ("127.0.0.1:1",),
            "ps": (gone, "no-such-host.invalid:2222"),
            "worker": (f"127.0.0.1:{worker.getsockname()[1]}",),
        }
        yield Task(kind="chief", index=0, cluster=addresses)


def test_addresses_that_cannot_be_reached_are_named(task):
    with pytest.raises(ConnectionError) as caught:
        reachable.check(task.others())
    first, second, advice = str(caught.value).splitlines()
    gone = task.cluster["ps"][0]
    assert first == (
        f"ps-0 at {gone} has signed in but cannot be reached: "
        "[Errno 111] Connection refused."
    )
    assert second.startswith(
        "ps-1 at no-such-host.invalid:2222 has signed in but cannot be reached: "
    )
    assert advice == "Check names, ports and firewalls between the machines."
