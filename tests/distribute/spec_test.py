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
