"""The chief learns the token of the parameter servers' Python function."""

import pytest

from monolith_tf.distribute import roster
from monolith_tf.distribute.cluster import Cluster
from monolith_tf.distribute.task import Task


def _cluster(tokens):
    """A chief's cluster as far as its members go; nothing is connected."""
    addresses = {"chief": ("a:1",), "ps": ("a:2", "a:3"), "worker": ("a:4",)}
    cluster = object.__new__(Cluster)
    cluster.task = Task(kind="chief", index=0, cluster=addresses)
    cluster.members = {f"ps-{i}": {"remote": t} for i, t in enumerate(tokens)}
    return cluster


def test_all_servers_have_one_token():
    assert _cluster(["pyfunc_0", "pyfunc_0"]).remote_token == "pyfunc_0"


def test_servers_that_differ_are_named():
    with pytest.raises(roster.RosterError, match="'ps-1': 'pyfunc_3'"):
        _ = _cluster(["pyfunc_0", "pyfunc_3"]).remote_token
