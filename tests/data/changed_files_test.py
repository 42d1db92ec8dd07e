"""Files that change while a job reads them."""

import os
import pathlib
import re

import pytest

from monolith_tf import data

_ROWS = 40
_GONE_ON = "Files must not change until the job ends: give new data new names"

pytestmark = pytest.mark.parametrize("file_format", ["parquet", "csv.gz", "tfrecord"])


@pytest.fixture(name="source")
def _source(write_rows, columns, tmp_path, file_format):
    for name, first in (("a", 0), ("b", _ROWS)):
        write_rows(f"{name}.{file_format}", range(first, first + _ROWS))
    spec = data.DataSpec(
        train=str(tmp_path / f"*.{file_format}"), batch_size=8, shuffle_buffer=8
    )
    return data.open_split(spec, "train", columns)


def _ids(windows):
    return [id_ for window, _ in windows for id_ in window.table["id"].to_pylist()]


def _replace(write_rows, file, numbers):
    """Replaces a file by another, as an atomic writer does."""
    new = write_rows(f"new{file[file.index('.', file.rindex('/')) :]}", numbers)
    os.replace(new, file)


@pytest.mark.parametrize("num_rows", [10, _ROWS, 90])
def test_a_file_replaced_between_epochs_stops_the_job(source, write_rows, num_rows):
    assert source.num_rows() == 2 * _ROWS
    windows = source.windows(num_epochs=None)
    seen = _ids(next(windows) for _ in range(2 * _ROWS // 8))
    assert sorted(seen) == list(range(2 * _ROWS))
    file = source.files[1]
    before = os.path.getsize(file)
    _replace(write_rows, file, range(1000, 1000 + num_rows))
    after = os.path.getsize(file)
    what = f"it had {before:,} bytes, and has {after:,} now"
    if before == after:
        what = "it was written again, with as many bytes"
    message = re.escape(f"{file}: changed while the job reads it: {what}. {_GONE_ON}")
    with pytest.raises(ValueError, match=message):
        for window, _ in windows:
            seen += window.table["id"].to_pylist()
    assert max(seen) < 2 * _ROWS  # None is from the new file.


def test_a_file_replaced_before_it_is_read_stops_the_job(source, write_rows):
    assert source.num_rows() == 2 * _ROWS
    _replace(write_rows, source.files[0], range(1000, 1000 + _ROWS))
    message = re.escape(f"{source.files[0]}: changed while the job reads it")
    with pytest.raises(ValueError, match=message):
        _ids(source.windows(shuffle=False))


def test_a_file_that_goes_stops_the_job(source):
    assert source.num_rows() == 2 * _ROWS
    os.remove(source.files[1])
    message = re.escape(
        f"{source.files[1]}: changed while the job reads it: it is gone"
    )
    with pytest.raises(ValueError, match=message):
        _ids(source.windows())


def test_a_file_that_grows_or_is_cut_stops_the_job(source):
    file = pathlib.Path(source.files[1])
    content = file.read_bytes()
    for changed in (content + content[-20:], content[: len(content) // 2]):
        opened = iter(source.windows(num_epochs=2, shuffle=False))
        next(opened)
        file.write_bytes(changed)
        with pytest.raises(ValueError, match="changed while the job reads it: it had"):
            _ids(opened)
        file.write_bytes(content)
        assert len(_ids(source.windows())) == 2 * _ROWS  # Unchanged, as after `touch`.


def test_files_that_come_while_a_job_reads_are_left_for_the_next(source, write_rows):
    windows = source.windows(num_epochs=2)
    seen = _ids([next(windows)])
    name = os.path.basename(source.files[0])
    write_rows(name.replace("a.", "c.", 1), range(1000, 1000 + _ROWS))
    seen += _ids(windows)
    assert sorted(seen) == sorted(2 * list(range(2 * _ROWS)))


def test_files_that_are_touched_or_copied_over_themselves_are_the_same(source):
    for file in map(pathlib.Path, source.files):
        file.write_bytes(file.read_bytes())
        os.utime(file, (0, 0))
    assert sorted(_ids(source.windows())) == list(range(2 * _ROWS))
