"""Cached values are made once for each cluster."""

from unittest import mock

import pytest

from monolith_tf import connected


@pytest.fixture
def made():
    """A cached function, and the arguments of its calls."""
    calls = []

    @connected.cached
    def make(name, size=1):
        calls.append((name, size))
        return object()

    return make, calls


def test_a_thing_is_made_once_for_its_arguments(made):
    make, calls = made
    first = make("a")
    assert make("a") is first
    assert make("b") is not first
    assert make("a", size=2) is not first
    assert calls == [("a", 1), ("b", 1), ("a", 2)]


def test_a_thing_is_made_again_for_another_cluster_and_known_again(made):
    make, calls = made
    alone = make("a")
    with mock.patch.object(connected, "_cluster", return_value=b"two tasks"):
        assert make("a") is not alone
        assert make("a") is make("a")
    assert make("a") is alone
    assert len(calls) == 2
