"""Tests of the conversion of windows of rows to `tf.data`."""

import gc
import itertools
import subprocess
import sys
import weakref

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from monolith_tf import data
from monolith_tf import ids
from monolith_tf.features.columns import ColumnType
from monolith_tf.features.strings import StringCodes

WORDS = ["", "a", "bé", "a word longer than twenty-two bytes"]
COLUMNS = {
    "id": ColumnType(dtype="int64"),
    "price": ColumnType(dtype="float32"),
    "word": ColumnType(dtype="string"),
    "ids": ColumnType(dtype="int64", is_list=True),
    "prices": ColumnType(dtype="float32", is_list=True),
    "words": ColumnType(dtype="string", is_list=True),
    "vector": ColumnType(dtype="float32", is_list=True, length=2),
}


def row(number):
    return {
        "id": number,
        "price": number / 2,
        "word": WORDS[number % 4],
        "ids": list(range(number % 3)),
        "prices": [0.5] * (number % 4),
        "words": WORDS[: number % 5],
        "vector": [number, -number],
    }


def plain(batch):
    """A batch as a list of rows in plain Python."""
    lists = {}
    for name, value in batch.items():
        ragged = isinstance(value, tf.RaggedTensor)
        lists[name] = value.to_list() if ragged else value.numpy().tolist()
    lists["word"] = [word.decode() for word in lists["word"]]
    lists["words"] = [[word.decode() for word in words] for words in lists["words"]]
    rows = zip(*lists.values(), strict=True)
    return [dict(zip(lists, values, strict=True)) for values in rows]


@pytest.fixture
def spec(tmp_path):
    table = pa.Table.from_pylist([row(number) for number in range(50)])
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=20)
    path = str(tmp_path / "rows.parquet")
    return data.DataSpec(train=path, batch_size=8, shuffle_buffer=16)


def test_every_kind_of_column_arrives_whole_and_in_batches(spec):
    source = data.open_split(spec, "train", COLUMNS, seed=2)
    batches = [plain(batch) for batch in source.dataset(shuffle=False)]
    assert [len(batch) for batch in batches] == [8] * 6 + [2]
    assert list(itertools.chain(*batches)) == [row(number) for number in range(50)]


def test_dataset_is_the_windows_cut_into_batches_from_any_position(spec):
    source = data.open_split(spec, "train", COLUMNS, seed=2)
    expected = []
    for window, _ in source.windows(num_epochs=2):
        ids = window.rows.tolist()
        expected += [ids[start : start + 8] for start in range(0, len(ids), 8)]
    assert len(expected) == 14 and expected[:7] != expected[7:]
    for epoch, batch in ((0, 0), (0, 3), (1, 6)):
        dataset = source.dataset(epoch, batch, num_epochs=2 - epoch)
        found = [plain(columns) for columns in dataset]
        assert [[r["id"] for r in rows] for rows in found] == (
            expected[epoch * 7 + batch :]
        )
        assert all(r == row(r["id"]) for rows in found for r in rows)


def test_element_spec_leaves_the_batch_open(spec):
    element = data.open_split(spec, "train", COLUMNS).dataset().element_spec
    assert element["id"] == tf.TensorSpec([None], tf.int64)
    assert element["word"] == tf.TensorSpec([None], tf.string)
    assert element["vector"] == tf.TensorSpec([None, 2], tf.float32)
    assert element["ids"] == tf.RaggedTensorSpec([None, None], tf.int64, 1)


def test_a_dataset_can_be_iterated_twice_and_inside_a_function(spec):
    dataset = data.open_split(spec, "train", COLUMNS, seed=2).dataset()

    @tf.function
    def total():
        found = tf.constant(0, tf.int64)
        for batch in dataset:
            found += tf.reduce_sum(batch["id"]) + tf.reduce_sum(batch["ids"])
        return found

    expected = sum(number + sum(range(number % 3)) for number in range(50))
    assert total().numpy() == expected
    assert total().numpy() == expected


def test_an_error_of_the_reader_is_kept_as_it_was(spec, tmp_path):
    table = pa.table({"id": [1, None, 3]})
    pq.write_table(table, tmp_path / "bad.parquet")
    bad = data.DataSpec(train=str(tmp_path / "bad.parquet"))
    source = data.open_split(bad, "train", {"id": COLUMNS["id"]})
    with pytest.raises(tf.errors.OpError):
        list(source.dataset())
    assert isinstance(source.failure, ValueError)
    assert "bad.parquet: row 1 (counting from 0): no value in" in str(source.failure)


def test_a_reader_may_run_where_tensorflow_has_one_thread(spec):
    # Reading must not wait for the pool on whose only thread it runs.
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    source = data.open_split(spec, "train", COLUMNS, seed=2)
    dataset = source.dataset().with_options(options)
    assert sum(len(batch["id"]) for batch in dataset) == 50


def test_a_source_without_columns_has_no_dataset(spec):
    with pytest.raises(ValueError, match="`columns` must name at least one column"):
        data.open_split(spec, "train", {}).dataset()


def test_missing_values_arrive_as_their_defaults(tmp_path):
    table = pa.table(
        {
            "i": pa.array([1, None], pa.int64()),
            "f": pa.array([None, float("nan")], pa.float64()),
            "s": pa.array([None, "x"]),
            "v": pa.array([None, [1.0, 2.0]]),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    wanted = {
        "i": ColumnType(dtype="int64", default=-7),
        "f": ColumnType(dtype="float32", default=2.5),
        "s": ColumnType(dtype="string", default="none"),
        "v": ColumnType(dtype="float32", is_list=True, length=2, default=4),
    }
    spec = data.DataSpec(train=str(tmp_path / "x.parquet"))
    (batch,) = data.open_split(spec, "train", wanted).dataset(shuffle=False)
    np.testing.assert_array_equal(batch["i"], [1, -7])
    np.testing.assert_array_equal(batch["f"], [2.5, 2.5])
    assert batch["s"].numpy().tolist() == [b"none", b"x"]
    np.testing.assert_array_equal(batch["v"], [[4, 4], [1, 2]])


def test_strings_may_come_as_codes_that_are_hashed_already(spec):
    source = data.open_split(spec, "train", COLUMNS, seed=2)
    plain_batches = list(source.dataset())
    coded_batches = list(source.dataset(string_codes=True))
    assert len(plain_batches) == len(coded_batches)
    for expected, coded in zip(plain_batches, coded_batches, strict=True):
        assert isinstance(coded["word"], StringCodes)
        found = dict(coded)
        for name in ("word", "words"):
            found[name] = coded[name].strings()
            hashes = coded[name].hashes()
            flat = expected[name]
            if name == "words":
                hashes, flat = hashes.flat_values, flat.flat_values
            np.testing.assert_array_equal(hashes, ids.from_strings(flat))
        assert plain(found) == plain(expected)


PROGRAM = """
import sys, time
import tensorflow as tf
from monolith_tf import data
from monolith_tf import ids
from monolith_tf.features import ColumnType
import pyarrow as pa, numpy as np

class Slow(data.Reader):
    def files(self, split): return ["slow"]
    def schema(self, file): return {}
    def read(self, piece, columns):
        for block in range(200):
            time.sleep(0.05)
            rows = np.arange(100) + 100 * block
            yield data.Block(pa.table({"x": rows}), rows)

sys.modules["slow"] = sys.modules["__main__"]
spec = data.DataSpec(reader="slow:Slow", batch_size=100, shuffle_buffer=200)
source = data.open_split(spec, "train", {"x": ColumnType(dtype="int64")})
iterator = iter(source.dataset())
next(iterator)
print("read")
"""


def test_a_process_ends_while_a_window_is_being_read():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "read\n"), done.stderr


def test_a_source_is_freed_with_its_dataset_and_not_before(spec):
    source = data.open_split(spec, "train", COLUMNS, seed=2)
    freed = weakref.ref(source)
    iterator = iter(source.dataset().map(lambda batch: batch["id"]).repeat(2))
    del source
    gc.collect()
    found = sorted(np.concatenate([ids.numpy() for ids in iterator]).tolist())
    assert found == sorted(2 * [*range(50)])
    del iterator
    gc.collect()
    assert freed() is None


def test_a_dataset_may_be_made_inside_a_function(spec):
    source = data.open_split(spec, "train", COLUMNS, seed=2)

    @tf.function
    def total():
        found = tf.constant(0, tf.int64)
        for batch in source.dataset():
            found += tf.reduce_sum(batch["id"])
        return found

    for _ in range(2):
        gc.collect()
        assert total() == sum(range(50))
