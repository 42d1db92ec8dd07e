"""Several servers at once, some of them dead, silent or refusing."""

import socket
import time

import grpc
import pytest

from monolith_tf.embedding.saved import files as checkpoint_files
from monolith_tf.serving import errors
from monolith_tf.serving import publishing
from monolith_tf.testing import publishing as support
from monolith_tf.training import checkpoint as checkpoint_lib

_DEAD = "127.0.0.1:1"


@pytest.fixture
def mute():
    """The address of something that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def pair():
    """Two servers with their addresses."""
    servers = support.UpdateServer(step=0), support.UpdateServer(step=0)
    with support.listening(servers[0]) as one, support.listening(servers[1]) as two:
        yield servers, (one, two)


def test_a_dead_server_and_a_mute_one_delay_nobody(job, mute, pair):
    servers, addresses = pair
    every = [_DEAD, mute, *addresses]
    with publishing.Publisher(job.folder, every, patience_secs=3600) as publisher:
        for turn in (1, 2):
            job.train([turn])
            end = time.monotonic() + 30
            outcomes = {}
            while [server.step for server in servers] != [turn, turn]:
                assert time.monotonic() < end
                outcomes |= publisher.publish(0.1)
            assert set(outcomes) <= set(addresses)
            # Servers that do not answer use the whole wait.
            assert [a for a in publisher.busy if a not in addresses] == [_DEAD, mute]
        threads = list(publisher._at_work.values())
    assert not any(thread.is_alive() for thread in threads)


def test_a_slow_server_is_waited_for_as_long_as_is_said(job, pair):
    servers, addresses = pair
    servers[0].before = lambda number: time.sleep(2 if number == 1 else 0)
    job.train([1])
    with publishing.Publisher(job.folder, addresses) as publisher:
        assert list(publisher.publish(30.0)) == list(addresses)


def test_a_server_is_tried_for_a_minute_unless_said_otherwise(job, monkeypatch):
    job.train([1])
    for wait, fails in ((50.0, False), (60.0, True)):
        monkeypatch.setattr(publishing, "_FIRST_WAIT_SECS", wait)
        with publishing.Publisher(job.folder, [_DEAD]) as publisher:
            outcomes = publisher.publish(10.0 if fails else 0.5)
            assert list(outcomes) == ([_DEAD] if fails else [])


def test_what_became_of_each_server_is_reported(job, mute, pair, monkeypatch):
    monkeypatch.setattr(publishing, "_SHORTEST_TIMEOUT_SECS", 0.5)
    servers, (one, two) = pair

    def refuse(number):
        raise grpc.RpcError(grpc.StatusCode.PERMISSION_DENIED, "not you")

    servers[0].before = refuse
    job.train([1, 2])
    every = [one, _DEAD, mute, two, two]
    with publishing.Publisher(job.folder, every, patience_secs=0.5) as publisher:
        outcomes = publisher.publish()
        assert not publisher.busy
    assert list(outcomes) == [one, _DEAD, mute, two]
    assert str(outcomes[one]) == f"{one} refuses an update: not you"
    for address in (_DEAD, mute):
        assert isinstance(outcomes[address], errors.ServingError)
        assert f"Could not update {address}." in str(outcomes[address])
    assert outcomes[two] == publishing.Published(1, 0, 1, 6, 0, 6)
    assert set(servers[1].rows) == set(job.rows([1, 2]))


def test_files_are_read_once_for_all_servers(job, pair, monkeypatch):
    servers, addresses = pair
    job.train([1, 2, 3])
    opened, read = [], []
    open_checkpoint, read_rows = (
        checkpoint_lib.open_checkpoint,
        checkpoint_files.read_rows,
    )

    def opening(path, **options):
        opened.append(path)
        return open_checkpoint(path, **options)

    def reading(directory, group):
        read.append(group["rows_files"][0]["name"])
        return read_rows(directory, group)

    monkeypatch.setattr(checkpoint_lib, "open_checkpoint", opening)
    monkeypatch.setattr(checkpoint_files, "read_rows", reading)
    with publishing.Publisher(job.folder, addresses) as publisher:
        outcomes = publisher.publish()
    assert [done.updated for done in outcomes.values()] == [9, 9]
    assert len(opened) == 1
    assert read
    assert len(read) == len(set(read))
    for server in servers:
        assert set(server.rows) == set(job.rows([1, 2, 3]))
