"""Rows of a served model are given out again after their id was removed."""

import numpy as np
import pytest
import tensorflow as tf

from monolith_tf.embedding.frozen.store import FrozenStore
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.export import refusals
from monolith_tf.export import row_room
from monolith_tf.export import updates
from monolith_tf.lineage import Branch
from monolith_tf.lineage import Lineage

_JOB = Lineage((Branch("a" * 32),))
_DIM = 3


class Served:
    """A table with room for some ids."""

    def __init__(self, spare):
        table = TableSpec(name="t", slot=1, dim=_DIM)
        self._store = FrozenStore([table], [ColumnSpec(feature="f", table="t")])
        (group,) = self._store.groups
        for variable in group.slices:
            variable.assign(tf.zeros([1 + spare, _DIM]))
        self._updates = updates.Updates(self._store, [0], 0, _JOB)
        specs = updates.Update(self._updates, self._store).specs
        # Variables are kept alive by the function's bound object.
        self._function = tf.function(self._updates.apply).get_concrete_function(**specs)

    def update(self, values, rows):
        found = self._function(
            table=tf.constant("t"),
            ids=tf.constant(ids(values), tf.int64),
            rows=tf.constant(np.reshape(rows, [-1, _DIM]), tf.float32),
            step=tf.constant(0, tf.int64),
            token=tf.constant(0, tf.int64),
            lineage=tf.constant(str(_JOB)),
            newest=tf.constant(1, tf.int64),
        )
        return int(found["inserted"]), int(found["rows"])

    def rows(self, values):
        (group,) = self._store.groups
        keys = self._store.keys(group, tf.constant(ids(values), tf.int64))
        (found,) = group.read(group.index.find(keys)).values()
        return found.numpy().tolist()


def ids(values):
    return (1 << 48) + np.asarray(values, np.int64)


def rows_of(values, scale=1.0):
    return np.repeat(np.asarray(values, np.float32)[:, None] * scale, _DIM, 1)


def test_a_removed_row_rests_and_is_then_given_out(monkeypatch):
    monkeypatch.setattr(row_room, "REST_SECS", 0.0)
    served = Served(spare=2)
    assert served.update([5, 6], rows_of([5, 6])) == (2, 2)
    # The row of 5 rests from here on, and another request must have come meanwhile.
    assert served.update([5], rows_of([0])) == (0, 1)
    with pytest.raises(tf.errors.InvalidArgumentError, match=refusals.NO_ROOM):
        served.update([7], rows_of([7]))
    assert served.rows([5, 6, 7]) == rows_of([0, 6, 0]).tolist()
    served.update([], [])
    assert served.update([7], rows_of([7])) == (1, 2)
    assert served.rows([5, 6, 7]) == rows_of([0, 6, 7]).tolist()


def test_a_row_rests_for_some_seconds():
    served = Served(spare=1)
    served.update([5], rows_of([5]))
    served.update([5], rows_of([0]))
    for _ in range(5):
        served.update([], [])
    with pytest.raises(tf.errors.InvalidArgumentError, match=refusals.NO_ROOM):
        served.update([6], rows_of([6]))
    assert served.rows([5, 6]) == rows_of([0, 0]).tolist()


def test_ids_that_change_for_ever_need_no_more_rows(monkeypatch):
    monkeypatch.setattr(row_room, "REST_SECS", 0.0)
    draw = np.random.default_rng(0)
    served, expected = Served(spare=60), {}
    for number in range(200):
        there = np.array(list(expected), np.int64)
        gone = draw.permutation(there)[: max(0, len(there) - 20)]
        new = draw.integers(10 * number, 10 * number + 60, 12)
        values = np.concatenate([gone, new])
        scale = 1.0 + number
        weights = rows_of(values + 1, scale) * np.isin(values, new)[:, None]
        served.update(values, weights)
        for value in gone:
            del expected[value]
        expected |= {value: (value + 1) * scale for value in new.tolist()}
        assert served.update([], [])[1] == len(expected)
    asked = np.arange(2200)
    want = [expected.get(value, 0.0) for value in asked.tolist()]
    assert served.rows(asked) == rows_of(want).tolist()
