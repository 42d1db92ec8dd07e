"""Tests of batches that a worker reads for functions traced by another process."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from monolith_tf import data
from monolith_tf.data import feed as feed_lib
from monolith_tf.data import rows as rows_lib
from monolith_tf.data import windows
from monolith_tf.features.columns import ColumnType

_BATCH = 64
_ROWS = 40 * _BATCH + 10
_COLUMNS = {
    "id": ColumnType(dtype="int64"),
    "word": ColumnType(dtype="string"),
    "ids": ColumnType(dtype="int64", is_list=True),
    "pair": ColumnType(dtype="float32", is_list=True, length=2),
}


@pytest.fixture(name="spec", scope="module")
def _spec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("feed")
    numbers = np.arange(_ROWS)
    table = pa.table(
        {
            "id": numbers,
            "word": [f"w{number % 97}" for number in numbers],
            "ids": [[number] * (number % 3) for number in numbers],
            "pair": [[number, -number] for number in numbers],
        }
    )
    pq.write_table(table, folder / "train.parquet", row_group_size=500)
    pq.write_table(table.slice(0, 100), folder / "eval.parquet")
    return data.DataSpec(
        train=str(folder / "train.parquet"),
        eval=str(folder / "eval.parquet"),
        batch_size=_BATCH,
        shuffle_buffer=8 * _BATCH,
    )


@pytest.fixture(name="feeder")
def _feeder(spec):
    return feed_lib.Feeder(
        lambda split: data.open_split(spec, split, _COLUMNS, seed=5), _COLUMNS, _BATCH
    )


def _fed(feeder, split, epoch, begin, end, cut=None):
    feed = feed_lib.Feed(feeder.tokens, _COLUMNS, _BATCH)

    @tf.function
    def read(begin, end):
        found = tf.TensorArray(tf.string, 0, dynamic_size=True, infer_shape=False)
        sizes = tf.TensorArray(tf.int64, 0, dynamic_size=True)
        epoch_ = tf.constant(epoch, tf.int64)
        numbers = None if cut is None else tf.constant(cut.to_numbers(), tf.int64)
        for batch in feed.dataset(split, epoch_, begin, end, numbers):
            words = tf.gather(batch["word"].dictionary, batch["word"].codes)
            ids = tf.strings.as_string(batch["id"])
            lists = tf.strings.as_string(batch["ids"].values)
            pairs = tf.strings.as_string(tf.reshape(batch["pair"], [-1]))
            found = found.write(found.size(), tf.concat([ids, words, lists, pairs], 0))
            sizes = sizes.write(sizes.size(), tf.size(batch["id"], tf.int64))
        return sizes.stack(), found.concat()

    numbers = [tf.constant(number, tf.int64) for number in (begin, end)]
    sizes, values = read(*numbers)
    return sizes.numpy().tolist(), values.numpy().tolist()


def _expected(spec, split, epoch, begin, end, cut=None):
    source = data.open_split(spec, split, _COLUMNS, seed=5)
    batches = source.dataset(epoch, begin, cut=cut).take(end - begin)
    sizes, values = [], []
    for batch in batches:
        sizes.append(int(tf.size(batch["id"])))
        values += tf.strings.as_string(batch["id"]).numpy().tolist()
        values += batch["word"].numpy().tolist()
        values += tf.strings.as_string(batch["ids"].values).numpy().tolist()
        pairs = tf.reshape(batch["pair"], [-1])
        values += tf.strings.as_string(pairs).numpy().tolist()
    return sizes, values


@pytest.mark.parametrize(
    "ranges",
    [
        pytest.param([("train", 0, 0, 41)], id="a whole epoch"),
        pytest.param([("train", 1, 39, 41)], id="the smaller last batch"),
        pytest.param(
            [("train", 0, 0, 3), ("train", 0, 3, 9), ("train", 0, 9, 30)],
            id="neighbours",
        ),
        pytest.param(
            [("train", 0, 30, 31), ("train", 0, 2, 3), ("train", 2, 2, 9)],
            id="to and fro",
        ),
        pytest.param(
            [
                ("train", 1, 3, 12, windows.Cut(20, (7, 130))),
                ("train", 1, 12, 20, windows.Cut(20, (7, 130))),
                ("train", 1, 20, 41, windows.Cut(-5, ())),
                ("train", 1, 20, 41, windows.Cut(-5)),
                ("train", 1, 20, 41),
            ],
            id="an epoch that was begun in another way",
        ),
        pytest.param(
            [("train", 0, 5, 20), ("eval", 0, 0, 2), ("train", 0, 20, 22)],
            id="another split in between",
        ),
    ],
)
def test_gives_what_the_source_gives(spec, feeder, ranges):
    rows = 0
    for given in ranges:
        expected = _expected(spec, *given)
        assert _fed(feeder, *given) == expected
        rows += sum(expected[0])
    assert feeder.examples == rows


def test_an_error_of_reading_is_kept(spec, feeder):
    with pytest.raises(tf.errors.OpError):
        _fed(feeder, "train", 0, 48, 49)
    assert feeder.failure == (
        "The data has no window 6 here, but the chief counted more rows. All tasks "
        "must read the same files."
    )
    # Reading continues after the error.
    expected = _expected(spec, "train", 0, 0, 1)
    assert _fed(feeder, "train", 0, 0, 1) == expected


def _train_of(tmp_path, num_rows):
    table = pa.table({"id": np.arange(num_rows)})
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=2 * _BATCH)


def test_a_worker_stops_at_files_that_are_not_the_chiefs(tmp_path):
    columns = {"id": ColumnType(dtype="int64")}
    train = tmp_path / "train.parquet"
    spec = data.DataSpec(train=str(train), batch_size=_BATCH, shuffle_buffer=_BATCH)
    feeder = feed_lib.Feeder(
        lambda split: data.open_split(spec, split, columns), columns, _BATCH
    )
    feed = feed_lib.Feed(feeder.tokens, columns, _BATCH)

    def files():
        return data.open_split(spec, "train", columns).files_digest()

    def read(files, epoch):
        feed.files["train"] = files

        @tf.function
        def count(*numbers):
            batches = feed.dataset("train", *numbers)
            return batches.reduce(0, lambda num, batch: num + tf.size(batch["id"]))

        return int(count(*(tf.constant(n, tf.int64) for n in (epoch, 0, 1))))

    _train_of(tmp_path, 4 * _BATCH)
    before = files()
    assert read(before, 0) == _BATCH
    _train_of(tmp_path, 3 * _BATCH)
    with pytest.raises(tf.errors.OpError):
        read(before, 1)
    assert feeder.failure.startswith(f"{train}: changed while the job reads it: it had")
    # A worker that starts later.
    feeder = feed_lib.Feeder(
        lambda split: data.open_split(spec, split, columns), columns, _BATCH
    )
    feed = feed_lib.Feed(feeder.tokens, columns, _BATCH)
    with pytest.raises(tf.errors.OpError):
        read(before, 1)
    assert feeder.failure.startswith("The files of `data.train` differ here from")
    # A chief that starts again, with the file as it is now.
    assert read(files(), 0) == _BATCH
    _train_of(tmp_path, 2 * _BATCH)
    assert read(files(), 0) == _BATCH


def test_rows_with_a_default_are_counted_once_whoever_reads_them(tmp_path):
    rows = 4 * 16_384  # Pieces end where windows do.
    numbers = np.arange(rows)
    missing = {"a": numbers % 7 == 0, "b": numbers % 11 == 3}
    table = pa.table({n: pa.array(numbers, mask=mask) for n, mask in missing.items()})
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=2 * 16_384)
    spec = data.DataSpec(
        train=str(tmp_path / "train.parquet"), batch_size=_BATCH, shuffle_buffer=0
    )
    columns = {n: ColumnType(dtype="int64", default=5) for n in ("b", "a")}
    feeders = [
        feed_lib.Feeder(
            lambda split: data.open_split(spec, split, columns), columns, 64
        )
        for _ in range(2)
    ]
    feed = feed_lib.Feed(feeders[0].tokens, columns, _BATCH)
    half = 16_384 // _BATCH

    def call(worker, epoch, window):
        there = feed_lib.Feed(feeders[worker].tokens, columns, _BATCH)

        @tf.function
        def work(epoch, begin):
            batches = there.dataset("train", epoch, begin, begin + half)
            read = batches.reduce(0, lambda n, batch: n + tf.size(batch["b"]))
            with tf.control_dependencies([read]):
                return read, there.news("train")

        read, news = work(*(tf.constant(n, tf.int64) for n in (epoch, window * half)))
        assert int(read) == 16_384
        feed.hear("train", news.numpy())
        return len(news)

    for window in range(4):
        assert call(window % 2, 0, window)
    counts = rows_lib.count_filled(feed.filled["train"], columns)
    assert counts == {f"defaults/{n}": mask.sum() for n, mask in missing.items()}
    # A worker reports nothing twice, and the reports of other workers change nothing.
    assert call(1, 1, 0) == 0
    for window in range(4):
        call(0, 1, window)
    assert rows_lib.count_filled(feed.filled["train"], columns) == counts
