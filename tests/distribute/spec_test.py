import pytest

from monolith_tf.distribute import spec


@pytest.mark.parametrize("name", ["ps", "workers"])
def test_counts_are_at_least_one(name):
    assert spec.ClusterSpec() == spec.ClusterSpec(ps=1, workers=1)
    with pytest.raises(ValueError) as caught:
        spec.ClusterSpec(**{name: 0})
    assert str(caught.value) == (
        f"`{name}` must be at least 1. Received: {name}=0. Leave `cluster` out to run "
        "in one process."
    )


@pytest.mark.parametrize("name", ["min_part_bytes", "join_timeout", "idle_timeout"])
def test_times_and_sizes_are_greater_than_zero(name):
    with pytest.raises(ValueError) as caught:
        spec.ClusterSpec(**{name: 0})
    expected = f"`{name}` must be greater than 0. Received: {name}=0."
    assert str(caught.value) == expected


def test_a_task_may_miss_a_few_beats():
    assert spec.ClusterSpec(hang_timeout=10).hang_timeout == 10
    with pytest.raises(ValueError) as caught:
        spec.ClusterSpec(hang_timeout=9)
    assert str(caught.value) == (
        "`hang_timeout` must be at least 10, five beats of a task. "
        "Received: hang_timeout=9."
    )


@pytest.mark.parametrize("name", ["prefetch", "deferred_push"])
def test_a_stage_is_one_step_deep_at_most(name):
    with pytest.raises(ValueError) as caught:
        spec.PipelineSpec(**{name: 2})
    assert str(caught.value) == f"`{name}` must be 0 or 1. Received: {name}=2."
