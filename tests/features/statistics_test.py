"""Tests of mean and deviation of the training data."""

import json

import numpy as np
import pytest
import tensorflow as tf

from monolith_tf import data
from monolith_tf.features import ColumnType
from monolith_tf.features import FeatureSpec
from monolith_tf.features import TransformSpec
from monolith_tf.features import statistics


class Batches:
    """A source over arrays."""

    failure = None

    def __init__(self, columns, batch_size=64):
        self._dataset = tf.data.Dataset.from_tensor_slices(columns).batch(batch_size)
        self.read = 0

    def dataset(self, *, batch_size, shuffle):
        assert not shuffle
        self.read += 1
        return self._dataset


def feature(*transform, **arguments):
    return FeatureSpec(name="x", kind="dense", transform=transform, **arguments)


def test_mean_and_deviation_over_all_batches():
    rng = np.random.default_rng(1)
    # Far from 0, where sums of squares lose precision.
    values = (1e4 + rng.normal(size=1000)).astype(np.float32)
    found = statistics.compute([feature("zscore")], Batches({"x": values}))["x"]
    assert found["count"] == 1000
    np.testing.assert_allclose(found["mean"], [values.mean(dtype=np.float64)], 1e-12)
    np.testing.assert_allclose(found["std"], [values.std(dtype=np.float64)], 1e-9)
    assert json.loads(json.dumps(found)) == found


def test_large_integers_are_not_rounded():
    values = 1_700_000_000 + np.arange(50)
    found = statistics.compute([feature("zscore")], Batches({"x": values}))["x"]
    np.testing.assert_allclose(found["mean"], [1_700_000_024.5], 0)
    np.testing.assert_allclose(found["std"], [np.arange(50).std()], 1e-9)


def test_the_steps_before_it_come_first():
    values = np.array([0.0, 3.0, 100.0, 8.0], np.float32)
    clip = TransformSpec(name="clip", max=10)
    spec = feature(clip, "log1p", "zscore")
    found = statistics.compute([spec], Batches({"x": values}, 3))["x"]
    expected = np.log1p(np.minimum(values, 10))
    np.testing.assert_allclose(found["mean"], [expected.mean()], 1e-6)
    np.testing.assert_allclose(found["std"], [expected.std()], 1e-6)


def test_each_number_of_a_vector_has_its_own():
    values = np.arange(12, dtype=np.float32).reshape(4, 3) ** 2
    found = statistics.compute([feature("zscore", dim=3)], Batches({"x": values}, 3))
    np.testing.assert_allclose(found["x"]["mean"], values.mean(0), 1e-6)
    np.testing.assert_allclose(found["x"]["std"], values.std(0), 1e-6)


def test_integers_and_missing_values():
    spec = feature("zscore", default=3)
    found = statistics.compute([spec], Batches({"x": np.array([1, 5])}))["x"]
    assert (found["mean"], found["std"]) == ([3.0], [2.0])
    values = np.array([1, np.nan, 5], np.float32)
    assert statistics.compute([spec], Batches({"x": values}))["x"]["mean"] == [3.0]


def test_lists_that_become_ids():
    buckets = TransformSpec(name="bucketize", boundaries=(0,))
    spec = FeatureSpec(name="x", kind="id_list", transform=("zscore", buckets))
    rows = tf.ragged.constant([[1.0, 2.0], [], [6.0]])
    found = statistics.compute([spec], Batches({"x": rows}, 2))["x"]
    assert (found["count"], found["mean"]) == (3, [3.0])


def test_a_constant_has_deviation_one():
    found = statistics.compute([feature("zscore")], Batches({"x": np.full(5, 2.0)}))
    assert (found["x"]["mean"], found["x"]["std"]) == ([2.0], [1.0])


def test_data_is_read_only_where_needed():
    source = Batches({"x": np.zeros(3)})
    given = TransformSpec(name="zscore", mean=1, std=1)
    assert statistics.compute([feature("log1p"), feature(given)], source) == {}
    assert source.read == 0


@pytest.mark.parametrize(
    ("values", "text"),
    [([1.0, np.inf], "`x` cannot be standardized: .* is not finite"), ([], "missing")],
)
def test_values_that_have_no_mean(values, text):
    values = np.array(values, np.float32)
    with pytest.raises(ValueError, match=text):
        statistics.compute([feature("zscore")], Batches({"x": values}))


def test_an_error_of_the_reader_is_raised_as_it_was(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("x\n1\ny\n")
    columns = {"x": ColumnType(dtype="float32")}
    source = data.open_split(data.DataSpec(train=str(path)), "train", columns)
    with pytest.raises(ValueError, match=r"x\.csv: row 1 .* 'y' is not a number"):
        statistics.compute([feature("zscore")], source)
