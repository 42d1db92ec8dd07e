"""Tests of the store's benchmark: that its sides compute the same."""

import json
import pathlib

import numpy as np
import pytest

_BENCHMARKS = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "benchmarks"
_CASE = {"batch": 8, "features": 3, "dim": 4, "ids": 20, "batches": 2, "cores": 0}


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(_BENCHMARKS)


@pytest.mark.parametrize("layers", ["one", "many"])
@pytest.mark.parametrize("optimizer", ["adagrad", "legacy"])
def test_tf_keras_trains_the_same_rows_as_the_store(tmp_path, layers, optimizer):
    from embedding_sides import keras_side
    from embedding_sides import ours

    initial = str(tmp_path / "initial.npy")
    store, peer = (
        ours.Side(json.dumps(_CASE)),
        keras_side.Side(json.dumps(_CASE), layers, optimizer),
    )
    store.make()
    store.initial(give=initial)
    peer.make(take=initial)
    found = []
    for side in (store, peer):
        side.run(steps=3)
        side.weights(give=str(tmp_path / "weights.npy"))
        found.append(np.load(tmp_path / "weights.npy"))
    assert found[0].shape == (3 * 8, 4)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-6)
    clock, cpu = store.time(steps=1)
    assert clock > 0.0
    assert cpu >= 0.0


@pytest.mark.parametrize("count", ["1", "2"])
def test_workers_count_the_updates_that_are_lost(count):
    from embedding_sides import workers

    side = workers.Side(json.dumps(_CASE), "exact", count)
    side.make()
    side.time(steps=4)
    assert side.lost() == 0.0
    side.time(steps=2)
    assert side.lost() == 0.0
    # Of the workers' passes, one to warm up and three timed, as if one was lost.
    side._passes += 1
    assert side.lost() == pytest.approx(1.0 / (4 * int(count) + 1))
    with pytest.raises(ValueError, match=r"whole passes\. Received: steps=3"):
        side.time(steps=3)


def test_ids_are_skewed_as_asked_and_below_their_bound():
    from embedding_sides import case

    def share_of_first(skew):
        ids = case.Case(features=1, batches=2, ids=1000, skew=skew).draw()
        assert ids.min() == 0
        assert ids.max() < 1000
        return np.mean(ids == 0)

    # Log-uniform: the rank is below 2 with a probability of log 2 / log 1000.
    np.testing.assert_allclose(share_of_first(1.0), 0.1003, atol=0.015)
    np.testing.assert_allclose(share_of_first(0.0), 0.001, atol=0.002)
