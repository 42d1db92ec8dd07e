"""Tests of the warning of numbers that become one as float32."""

import unittest

import numpy as np
import pyarrow as pa
import pytest
from absl import logging
from pyarrow import csv
from pyarrow import parquet

from monolith_tf import data
from monolith_tf.data import rounding
from monolith_tf.features import FeatureSpec
from monolith_tf.features import required_columns
from monolith_tf.features.columns import ColumnType

FLOAT = ColumnType(dtype="float32")
PAIR = ColumnType(dtype="float32", is_list=True, length=2)
INT = ColumnType(dtype="int64")
# Around 1.7e9 float32 has every 128th number.
TIMES = 1.7e9 + np.arange(50) + 0.25


def windows_of(path, table, **columns):
    """Reads a file twice: what was logged at the warning level, without times."""
    write = {".csv": csv.write_csv, ".parquet": parquet.write_table}[path.suffix]
    write(table, path)
    with unittest.TestCase().assertLogs("absl", "INFO") as logs:
        logging.info("begun")
        source = data.open_split(data.DataSpec(train=str(path)), "train", columns)
        for _ in range(2):
            for _ in source.windows():
                pass
    return [r.getMessage() for r in logs.records if r.levelname == "WARNING"]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_distinct_numbers_that_become_one(tmp_path, ending):
    table = pa.table({"time": TIMES, "price": np.arange(50) / 3, "id": range(50)})
    (message,) = windows_of(
        tmp_path / f"x.{ending}", table, time=FLOAT, price=FLOAT, id=INT
    )
    left = len(np.unique(TIMES.astype(np.float32)))
    assert left == 1
    assert message.startswith(
        f"{tmp_path}/x.{ending}: column `time` is used as float32, and of its first 50 "
        f"different numbers {left} are left. Subtract"
    )


def test_more_than_half_of_the_numbers_may_be_left(tmp_path):
    # From 2^24 on, float32 has every second integer, and from 2^25 on every fourth.
    few = pa.table({"x": 2.0**24 + 2 * np.arange(40)})
    assert windows_of(tmp_path / "x.parquet", few, x=FLOAT) == []
    fourth = pa.table({"x": 2.0**25 + np.arange(40)})
    (message,) = windows_of(tmp_path / "y.parquet", fourth, x=FLOAT)
    assert "of its first 40 different numbers 11 are left" in message


def test_lists_decimals_and_integers_are_looked_at(tmp_path):
    pairs = pa.array(TIMES.reshape(-1, 2).tolist())
    whole = pa.array(TIMES.astype(np.int64)[:25])
    table = pa.table({"pairs": pairs, "whole": whole})
    table = table.append_column("decimal", whole.cast(pa.decimal128(19)))
    table = table.append_column("half", pa.array(np.arange(25, dtype=np.float16)))
    columns = dict.fromkeys(("whole", "decimal", "half"), FLOAT)
    found = windows_of(tmp_path / "x.parquet", table, pairs=PAIR, **columns)
    assert [message.split("`")[1] for message in found] == ["pairs", "whole", "decimal"]


def test_integers_are_looked_at_where_no_transform_takes_them(tmp_path):
    path = tmp_path / "x.csv"
    whole = pa.table({"time": TIMES.astype(np.int64)})
    for transform, num_warnings in ((), 1), (("zscore",), 0):
        feature = FeatureSpec(name="time", kind="dense", transform=transform)
        csv.write_csv(whole, path)
        schema = data.read_schema(data.DataSpec(train=str(path)))
        columns = required_columns([feature], schema=schema)
        assert columns["time"].dtype == "int64"
        assert len(windows_of(path, whole, **columns)) == num_warnings


def test_a_column_is_checked_for_so_many_blocks_at_most():
    look = rounding.Look()
    checked = 0
    for _ in range(100):
        if look.is_due("constant"):
            look.at("file", "constant", pa.array([1.5, 1.5]))
            checked += 1
    assert checked == 16
    assert look.is_due("narrow")
    look.at("file", "narrow", pa.array([1.5, 2.5], pa.float32()))
    assert not look.is_due("narrow")
