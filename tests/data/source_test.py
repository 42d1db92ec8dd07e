"""Rows of every format: their order, their content, and starts at any position."""

import dataclasses
import itertools
import os
import re
import unittest

import pytest

from monolith_tf import data
from monolith_tf.data import reader as reader_lib
from monolith_tf.data import windows as windows_lib

BATCH = 8
SIZES = {"a": 40, "b": 1, "c": 53}
TOTAL = sum(SIZES.values())
BAD = (2, 7, 33, 41, 60, 61)

one_of_each = pytest.mark.parametrize("file_format", ["parquet", "csv", "tfrecord"])


@pytest.fixture
def open_source(write_rows, columns, tmp_path, file_format):
    """Opens a split over several files, with rows numbered across them."""

    def open_(split="train", bad=(), seed=5, **arguments):
        first = 0
        for name, size in SIZES.items():
            numbers = range(first, first + size)
            write_rows(f"{name}.{file_format}", numbers, bad)
            first += size
        arguments = {"batch_size": BATCH, "shuffle_buffer": 30} | arguments
        spec = data.DataSpec(train=str(tmp_path / f"*.{file_format}"), **arguments)
        return data.open_split(spec, split, columns, seed)

    return open_


def batches_of(source, epoch=0, batch=0, num_epochs=1, batch_size=BATCH, **how):
    """Each batch as a list of rows in plain Python."""
    batches = []
    windows = source.windows(epoch, batch, num_epochs, batch_size=batch_size, **how)
    for window, first in windows:
        rows = window.table.to_pylist()
        assert len(rows) == len(window.rows) == len(window.files)
        for row in rows:
            row["name"] = row["name"].decode()
        starts = range(first * batch_size, len(rows), batch_size)
        batches += [rows[start : start + batch_size] for start in starts]
    return batches


def ids_of(batches):
    return [row["id"] for batch in batches for row in batch]


def test_in_order_gives_every_row_of_every_file_as_it_is(open_source, row_of):
    batches = batches_of(open_source(), shuffle=False)
    assert list(itertools.chain(*batches)) == [row_of(i) for i in range(TOTAL)]
    assert [len(batch) for batch in batches] == [8] * 11 + [6]


@one_of_each
def test_shuffled_epochs_have_the_same_rows_in_other_orders(open_source, row_of):
    source = open_source()
    batches = batches_of(source, num_epochs=2)
    assert [len(batch) for batch in batches] == ([8] * 11 + [6]) * 2
    first, second = ids_of(batches[:12]), ids_of(batches[12:])
    assert sorted(first) == sorted(second) == list(range(TOTAL))
    assert first != second and first != sorted(first)
    assert all(row == row_of(row["id"]) for row in itertools.chain(*batches))


@one_of_each
def test_order_is_a_function_of_the_seed(open_source):
    one, same, other = open_source(), open_source(), open_source(seed=6)
    ids = ids_of(batches_of(one))
    assert ids == ids_of(batches_of(same))
    assert ids != ids_of(batches_of(other))


def check_beginnings(open_source, shuffle, **arguments):
    source = open_source(**arguments)
    per_epoch = source.batches_per_epoch()
    whole = batches_of(open_source(**arguments), num_epochs=3, shuffle=shuffle)
    assert len(whole) == 3 * per_epoch
    for epoch, batch in ((0, 1), (0, 5), (1, per_epoch - 1)):
        # One source has counted the rows of all files, the other has counted none.
        for other in (source, open_source(**arguments)):
            rest = batches_of(other, epoch, batch, 3 - epoch, shuffle=shuffle)
            assert rest == whole[epoch * per_epoch + batch :]


def test_beginning_anywhere_gives_what_an_undisturbed_run_gives(open_source):
    check_beginnings(open_source, True, on_bad_row="skip", bad=BAD)


@one_of_each
@pytest.mark.parametrize("shuffle", [True, False])
def test_beginning_anywhere_where_no_row_is_bad(open_source, shuffle):
    check_beginnings(open_source, shuffle)


@one_of_each
def test_beginning_after_the_last_batch_goes_on_with_the_next_epoch(open_source):
    source = open_source()
    rest = batches_of(source, 0, source.batches_per_epoch(), num_epochs=2)
    assert rest == batches_of(source, 1, 0, num_epochs=1)


@one_of_each
def test_skipped_rows_are_counted_once_and_missing_from_the_batches(open_source):
    source = open_source(bad=BAD, on_bad_row="skip")
    ids = ids_of(batches_of(source, num_epochs=2))
    assert sorted(ids) == sorted([*(set(range(TOTAL)) - set(BAD))] * 2)
    assert source.bad_rows == len(BAD)
    assert source.num_rows() == TOTAL - len(BAD)


@pytest.mark.parametrize("bad", [7, 60])
def test_a_bad_row_is_named_with_its_file(open_source, bad, file_format):
    source = open_source(bad=[bad])
    file, row = ("a", bad) if bad < 40 else ("c", bad - 41)
    place = re.escape(f"{file}.{file_format}: row {row} (counting from 0): ")
    with pytest.raises(ValueError, match=place + ".* `data.on_bad_row` to `skip`"):
        list(source.windows(shuffle=False))


@one_of_each
def test_held_out_rows_are_never_trained_on_and_fixed_by_the_seed(open_source):
    arguments = {"validation_fraction": 0.3}
    train = open_source(**arguments)
    held_out = open_source("eval", **arguments)
    trained = ids_of(batches_of(train, num_epochs=2))
    evaluated = ids_of(batches_of(held_out))
    assert not set(trained) & set(evaluated)
    assert sorted({*trained, *evaluated}) == list(range(TOTAL))
    assert evaluated == sorted(evaluated)
    assert train.num_rows() == len(trained) // 2
    assert held_out.num_rows() == len(evaluated)
    # Within four standard deviations of 0.3 * 94.
    assert 10 <= len(evaluated) <= 46
    other = open_source("eval", seed=6, **arguments)
    assert evaluated != ids_of(batches_of(other))


@one_of_each
def test_beginning_anywhere_with_rows_held_out_and_rows_skipped(open_source):
    check_beginnings(
        open_source, True, validation_fraction=0.3, on_bad_row="skip", bad=BAD
    )


@one_of_each
def test_locate_names_the_rows_of_a_batch(open_source):
    source = open_source(on_bad_row="skip", bad=(3, 50))
    starts = [0, 40, 41]
    whole = batches_of(source, num_epochs=2)
    per_epoch = source.batches_per_epoch()
    for epoch, batch in ((0, 0), (1, 3), (1, per_epoch - 1)):
        expected = [row["id"] for row in whole[epoch * per_epoch + batch]]
        files, rows = open_source(on_bad_row="skip", bad=(3, 50)).rows_of(epoch, batch)
        assert [starts[f] + r for f, r in zip(files, rows, strict=True)] == expected
        ranges = source.locate(epoch, batch)
        assert sum(place.num_rows for place in ranges) == len(expected)
        for place in ranges:
            start = starts[source.files.index(place.file)]
            own = [i - start for i, f in zip(expected, files, strict=True)
                   if source.files[f] == place.file]  # fmt: skip
            assert (place.first_row, place.last_row) == (min(own), max(own))


@one_of_each
def test_locate_of_a_batch_that_is_not_there(open_source):
    for batch in (12, 40):
        with pytest.raises(ValueError, match=rf"epoch's 12\. .*batch={batch}"):
            open_source().locate(0, batch)


@one_of_each
def test_another_batch_size_may_be_asked_for(open_source):
    source = open_source()
    batches = batches_of(source, batch_size=50, shuffle=False)
    assert [len(batch) for batch in batches] == [50, 44]
    assert source.batches_per_epoch(50) == 2


@one_of_each
def test_only_train_is_shuffled_by_default_and_not_without_a_buffer(open_source):
    in_order = list(range(TOTAL))
    source = open_source(shuffle_buffer=0)
    assert ids_of(batches_of(source)) == in_order


@one_of_each
def test_never_ends_when_asked(open_source):
    source = open_source()
    windows = itertools.islice(source.windows(num_epochs=None), 9)
    # Windows of 32 rows: 3 to an epoch, the last one smaller.
    assert [len(window.rows) for window, _ in windows] == [32, 32, 30] * 3


def test_schema_has_the_columns(open_source, columns, file_format):
    schema = open_source().schema()
    assert {name: schema[name].dtype for name in columns} == {
        "id": "int64",
        "price": "float32",
        "name": "string",
        # CSV does not show that a cell is a list.
        "tags": "string" if "csv" in file_format else "int64",
    }


@one_of_each
def test_a_column_that_is_not_there(open_source, columns, write_rows, tmp_path,
                                    file_format):  # fmt: skip
    path = write_rows(f"x.{file_format}", range(3))
    columns["pirce"] = columns["price"]
    with pytest.raises(ValueError, match=r"no column `pirce` .* mean `price`"):
        data.open_split(data.DataSpec(train=path), "train", columns)


@one_of_each
def test_a_file_without_rows(write_rows, columns, tmp_path, file_format):
    empty = write_rows(f"x.{file_format}", [])
    place = rf"x\.{file_format}: has no rows.* from `data\.train`.*`data\.on_bad_row`"
    with pytest.raises(ValueError, match=place):
        data.read_schema(data.DataSpec(train=empty))
    full = write_rows(f"y.{file_format}", range(3))
    lists = [[empty], [empty, full], [full, empty]]
    for files in lists if file_format == "csv" else lists[:1]:
        with pytest.raises(ValueError, match=place):
            spec = data.DataSpec(train=tuple(files))
            data.open_split(spec, "train", columns).num_rows()
        with pytest.raises(ValueError, match=place):
            list(data.open_split(spec, "train", columns).windows())


@one_of_each
def test_a_file_without_rows_is_passed_over_and_counted(write_rows, columns, tmp_path,
                                                        file_format):  # fmt: skip
    empty = write_rows(f"x.{file_format}", [])
    full = write_rows(f"y.{file_format}", range(3))
    for files in ([empty, full], [full, empty, full]):
        how = "skip" if file_format == "csv" else "error"
        spec = data.DataSpec(train=tuple(files), on_bad_row=how)
        assert data.read_schema(spec) == data.read_schema(data.DataSpec(train=full))
        source = data.open_split(spec, "train", columns)
        assert source.num_rows() == 3
        assert source.counts() == {"bad_rows": 0, "empty_files": 1}
        assert sorted(ids_of(batches_of(source, batch_size=2))) == [0, 1, 2]
    source = data.open_split(
        data.DataSpec(train=empty, on_bad_row="skip"), "train", columns
    )
    assert source.num_rows() == 0
    with pytest.raises(ValueError, match="split `train` has no rows"):
        source.batches_per_epoch()
    with pytest.raises(ValueError, match="has no rows"):
        list(source.windows())


def splitmix64(x):
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def drawn_order(num, *key):
    state = 0
    for part in key:
        state = splitmix64((state + part) % 2**64)
    return sorted(range(num), key=lambda i: splitmix64((state + i) % 2**64))


def test_order_by_its_definition(write_rows, columns, tmp_path):
    write_rows("a.parquet", range(40))  # row groups of 16, 16 and 8 rows
    write_rows("b.parquet", range(40, 59))  # 16 and 3
    spec = data.DataSpec(
        train=str(tmp_path / "*.parquet"), batch_size=10, shuffle_buffer=25
    )
    source = data.open_split(spec, "train", columns, seed=9)
    groups = [range(16), range(16, 32), range(32, 40), range(40, 56), range(56, 59)]
    for epoch in (0, 4):
        stream = [i for g in drawn_order(5, 9, 1, epoch) for i in groups[g]]
        expected = []
        for window, first in enumerate(range(0, 59, 30)):  # 25 becomes 3 batches
            rows = stream[first : first + 30]
            expected += [rows[i] for i in drawn_order(len(rows), 9, 2, epoch, window)]
        assert ids_of(batches_of(source, epoch, batch_size=10)) == expected


def test_parquet_begins_without_reading_what_is_before(write_rows, columns, tmp_path):
    path = write_rows("a.parquet", range(64))
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[4:200] = bytes(196)  # destroys the first row group
    (tmp_path / "a.parquet").write_bytes(content)
    spec = data.DataSpec(train=path, batch_size=16, shuffle_buffer=0)
    source = data.open_split(spec, "train", columns)
    assert source.num_rows() == 64
    # Windows without shuffling are larger than this file; ask for the last rows only.
    small = dataclasses.replace(spec, shuffle_buffer=16)
    source = data.open_split(small, "train", columns)
    order = drawn_order(4, 0, 1, 0)
    place = order.index(0)
    if place + 1 < 4:
        after = batches_of(source, 0, place + 1, batch_size=16)
        assert [b[0]["id"] // 16 for b in after] == order[place + 1 :]
    with pytest.raises(ValueError, match="row group 0 cannot be read from row 0"):
        list(source.windows())


def test_files_are_taken_in_the_order_of_the_patterns(write_rows, columns, tmp_path):
    for name in ("b2", "b1", "a"):
        write_rows(f"{name}.csv", [len(name)])
    patterns = (str(tmp_path / "b*.csv"), str(tmp_path / "*.csv"))
    spec = data.DataSpec(train=patterns)
    files = data.open_split(spec, "train", columns).files
    assert [file.rsplit("/", 1)[1] for file in files] == ["b1.csv", "b2.csv", "a.csv"]


def test_a_pattern_without_files(columns):
    spec = data.DataSpec(train="nowhere/*.parquet")
    with pytest.raises(ValueError, match=r"`data\.train`: no file matches 'nowhere/"):
        data.open_split(spec, "train", columns)


def test_a_pattern_that_matches_a_folder_or_a_broken_link(
    write_rows, columns, tmp_path
):
    write_rows("a.csv", range(3))
    (tmp_path / "b.csv").mkdir()
    (tmp_path / "c.csv").symlink_to(tmp_path / "gone.csv")
    os.mkfifo(tmp_path / "d.csv")
    spec = data.DataSpec(train=str(tmp_path / "a.csv"), eval=str(tmp_path / "*.csv"))
    with pytest.raises(
        ValueError,
        match=r"^`data\.eval`: '.*/\*\.csv' matches more than files: .*/b\.csv \(a "
        r"folder\), .*/c\.csv \(a link to .*/gone\.csv, which is not there\), .*/d"
        r"\.csv \(no regular file\)\. For the files of a folder use a pattern, "
        r"'.*/b\.csv/\*\.csv'\. Remove what is neither a file nor a folder\.",
    ):
        data.open_split(spec, "eval", columns)
    spec = data.DataSpec(train=str(tmp_path / "b.csv"))
    with pytest.raises(ValueError, match=r"a pattern, '.*/b\.csv/\*\.csv'\.$"):
        data.read_schema(spec)


def test_patterns_for_files_of_any_folders(write_rows, columns, tmp_path):
    # A folder that matches too is no harm where the pattern gives its files.
    (tmp_path / "deep" / "x.csv").mkdir(parents=True)
    for name in ("a.csv", "deep/x.csv/part.csv"):
        write_rows(name, range(3))
    for pattern in ("**/*.csv", "**"):
        spec = data.DataSpec(train=str(tmp_path / pattern), format="csv")
        files = data.open_split(spec, "train", columns).files
        expected = ["a.csv", "deep/x.csv/part.csv"]
        assert files == [str(tmp_path / name) for name in expected]
    (tmp_path / "deep" / "y.csv").mkdir()
    spec = data.DataSpec(train=str(tmp_path / "**/*.csv"))
    with pytest.raises(
        ValueError, match=r"than files: [^ ]*/deep/y\.csv \(a folder\)\. "
    ):
        data.open_split(spec, "train", columns)


def test_a_file_of_several_names_is_read_once(write_rows, columns, tmp_path):
    (tmp_path / "f").mkdir()
    for number, name in enumerate(("f/a.csv", "f/b.csv")):
        write_rows(name, range(3 * number, 3 * number + 3))
    (tmp_path / "f" / "z.csv").symlink_to(tmp_path / "f" / "a.csv")
    (tmp_path / "g").symlink_to(tmp_path / "f")
    own = [str(tmp_path / "f" / name) for name in ("a.csv", "b.csv")]
    patterns = {
        "link": (str(tmp_path / "f" / "*.csv"),),
        "spelling": (own[0], str(tmp_path / "f" / ".." / "f" / "[ab].csv")),
        "folder": (str(tmp_path / "**" / "*.csv"),),
    }
    left_out = {"link": ["f/z.csv"], "spelling": ["f/../f/a.csv"],
                "folder": ["f/z.csv", "g/a.csv", "g/b.csv", "g/z.csv"]}  # fmt: skip
    testing = unittest.TestCase()
    for name, pattern in patterns.items():
        reader_lib._say_is_repeat.cache_clear()
        with testing.assertLogs("absl", "WARNING") as logs:
            source = data.open_split(data.DataSpec(train=pattern), "train", columns)
        names = [os.path.relpath(os.path.realpath(f), tmp_path) for f in source.files]
        assert names == ["f/a.csv", "f/b.csv"]
        assert source.num_rows() == 6
        found = [
            re.search(
                r"`data\.train`: (.*) is the same file as .*/[ab]\.csv, and", line
            )
            for line in logs.output
        ]
        expected = [f"{tmp_path}/{path}" for path in left_out[name]]
        assert [match and match[1] for match in found] == expected
    with testing.assertNoLogs("absl", "WARNING"):
        spec = data.DataSpec(train=(own[0], str(tmp_path / "f" / "[ab].csv")))
        assert data.open_split(spec, "train", columns).files == own


def test_a_split_without_files(columns):
    spec = data.DataSpec(train="x.parquet", format="parquet")
    with pytest.raises(ValueError, match=r"Set `data\.eval`, or .*fraction"):
        data.open_split(spec, "eval", columns)


def test_a_file_that_lacks_a_column_of_the_first(write_rows, columns, tmp_path):
    write_rows("a.csv", range(3))
    (tmp_path / "b.csv").write_text("id,price\n1,2\n")
    spec = data.DataSpec(train=str(tmp_path / "*.csv"))
    source = data.open_split(spec, "train", columns)
    with pytest.raises(ValueError, match=r"b\.csv: lacks the column `name`"):
        list(source.windows(shuffle=False))


def check_goes_on(source, order, row, *, batch_size, cut, row_of, shuffle=True):
    """Compares batches from a row of epoch 1 on with rows in their known order."""
    per_epoch = -(-TOTAL // batch_size)
    batch = per_epoch - -(-(TOTAL - row) // batch_size)
    cut = windows_lib.Cut(row - batch * batch_size, cut)
    rest = batches_of(
        source, 1, batch, num_epochs=2, batch_size=batch_size, shuffle=shuffle, cut=cut
    )
    num_rest = -(-(TOTAL - row) // batch_size)
    starts = range(row, TOTAL, batch_size)
    expected = [order[start : start + batch_size] for start in starts]
    assert [ids_of([batch]) for batch in rest[:num_rest]] == expected
    assert all(row == row_of(row["id"]) for row in itertools.chain(*rest))
    # The next epoch is as it always is.
    whole = batches_of(source, 2, batch_size=batch_size, shuffle=shuffle)
    assert rest[num_rest:] == whole
    for place, batch_of in ((0, expected[0]), (num_rest - 1, expected[-1])):
        _, rows = source.rows_of(
            1, batch + place, batch_size=batch_size, shuffle=shuffle, cut=cut
        )
        firsts = [max(s for s in (0, 40, 41) if s <= number) for number in batch_of]
        assert [n - f for n, f in zip(batch_of, firsts, strict=True)] == rows.tolist()


@one_of_each
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_goes_on_at_any_row_with_batches_of_another_size(
    open_source, row_of, batch_size
):
    former = open_source()  # Windows of 32 rows.
    order = ids_of(batches_of(former, 1))
    for row in (1, 32, 40, 93):
        check_goes_on(
            open_source(batch_size=batch_size),
            order,
            row,
            batch_size=batch_size,
            cut=tuple(former.identity()["order"]),
            row_of=row_of,
        )


@pytest.mark.parametrize("row", [5, 30, 64])
def test_an_epoch_begun_in_the_order_of_files_ends_in_it(open_source, row_of, row):
    check_goes_on(
        open_source(seed=6),
        list(range(TOTAL)),
        row,
        batch_size=BATCH,
        cut=(),
        row_of=row_of,
    )
    former = open_source()
    check_goes_on(
        open_source(seed=6, shuffle_buffer=0),
        ids_of(batches_of(former, 1)),
        row,
        batch_size=BATCH,
        cut=tuple(former.identity()["order"]),
        row_of=row_of,
    )
