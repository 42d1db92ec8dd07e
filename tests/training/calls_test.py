import pytest
import tensorflow as tf

from monolith_tf.training import calls


class FakeRemote:
    """A result that cannot be fetched until the coordinator is done."""

    def __init__(self, outcomes):
        self._outcomes = list(outcomes)

    def fetch(self):
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class FakeCoordinator:
    """A coordinator whose calls end when the test says."""

    def __init__(self, *remotes, states=()):
        self._remotes = list(remotes)
        self._states = list(states)

    def schedule(self, function, args):
        return self._remotes.pop(0)

    def done(self):
        state = self._states.pop(0)
        if isinstance(state, Exception):
            raise state
        return state


def lost(name):
    return tf.errors.UnavailableError(None, None, f"Socket closed: {name}")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(calls, "_POLL_SECS", 0.01)


def test_results_come_with_their_tags():
    coordinator = FakeCoordinator(FakeRemote(["one"]), FakeRemote(["two"]))
    pending = calls.Calls(coordinator, check=lambda waited: None)
    pending.begin(None, (0,), "first")
    pending.begin(None, (1,), "second")
    assert pending.under_way == 2
    assert {pending.next_done(), pending.next_done()} == {
        ("first", "one"),
        ("second", "two"),
    }
    assert pending.under_way == 0


def test_a_result_lost_on_its_way_is_taken_from_the_call_that_repeated_it():
    checks = []
    coordinator = FakeCoordinator(
        FakeRemote([lost("worker 0"), "again"]), states=[False, False, True]
    )
    pending = calls.Calls(coordinator, check=lambda waited: checks.append(waited))
    pending.begin(None, (0,), "tag")
    assert pending.next_done() == ("tag", "again")
    assert len(checks) >= 3  # Once while waiting for a call, twice for its repetition.
    assert pending.under_way == 0


def test_the_first_error_is_raised_not_the_ones_that_follow_from_it():
    first = tf.errors.InvalidArgumentError(None, None, "the cause")
    coordinator = FakeCoordinator(
        FakeRemote([tf.errors.CancelledError(None, None, "cancelled")]),
        states=[first],
    )
    pending = calls.Calls(coordinator, check=lambda waited: None)
    pending.begin(None, (0,), "tag")
    with pytest.raises(tf.errors.InvalidArgumentError, match="the cause"):
        pending.next_done()


def test_waiting_ends_where_it_is_in_vain():
    def check(waited):
        raise RuntimeError("A parameter server was lost.")

    coordinator = FakeCoordinator(FakeRemote([lost("worker 0")]), states=[False])
    pending = calls.Calls(coordinator, check=check)
    pending.begin(None, (0,), "tag")
    with pytest.raises(RuntimeError, match="parameter server was lost"):
        pending.next_done()


def test_a_result_that_an_error_has_removed_is_that_error():
    error = tf.errors.InternalError(None, None, "Unable to parse request")
    coordinator = FakeCoordinator(FakeRemote([None]), states=[error])
    pending = calls.Calls(coordinator, check=lambda waited: None)
    pending.begin(None, (0,), "only")
    with pytest.raises(tf.errors.InternalError, match="Unable to parse"):
        pending.next_done()
