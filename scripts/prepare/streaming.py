"""Shared by the preparation scripts: converts big files to Parquet in pieces."""

import argparse
import contextlib
import gzip
import hashlib
import io
import pathlib
import sys
import zipfile
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import IO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from rich import progress

ROW_GROUP_ROWS = 131_072
BLOCK_BYTES = 1 << 24


def parser(description: str | None, data: str, source: str) -> argparse.ArgumentParser:
    """Returns the arguments that all scripts take.

    Args:
      description: The script's docstring.
      data: The folder below `data` that it writes.
      source: The help text for its input.
    """
    made = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    root = pathlib.Path(__file__).resolve().parent.parent.parent
    made.add_argument("source", type=pathlib.Path, help=source)
    made.add_argument("--output", type=pathlib.Path, default=root / "data" / data)
    return made


def convert_csv(
    make: Callable[..., None], description: str | None, data: str, source: str
) -> None:
    """Runs a conversion whose rows are drawn into splits; arguments as `parser`."""
    arguments = parser(description, data, source)
    arguments.add_argument("--shares", nargs=3, type=float, default=[0.8, 0.1, 0.1])
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    make(given.source, given.output, shares(given.shares), given.seed)


class Counted(io.RawIOBase):
    """A file whose bytes move a progress bar as they are read."""

    def __init__(self, file: IO[bytes], bar: progress.Progress, task: Any) -> None:
        super().__init__()
        self._file, self._bar, self._task = file, bar, task

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._bar.advance(self._task, len(data))
        return len(data)


@contextlib.contextmanager
def opened(path: pathlib.Path, member: str | None = None) -> Iterator[IO[bytes]]:
    """Opens a file, plain or `.gz`, or a member of a `.zip`, under a progress bar.

    Args:
      path: The file.
      member: For a zip file, the end of the member's name.
    """
    columns = progress.Progress.get_default_columns()
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(progress.Progress(*columns))
        if member is not None:
            archive = stack.enter_context(zipfile.ZipFile(path))
            names = [n for n in archive.namelist() if n.endswith(member)]
            if not names:
                sys.exit(f"error: {path} has no {member}; it is not the expected file.")
            info = archive.getinfo(names[0])
            raw: IO[bytes] = stack.enter_context(archive.open(info))
            size = info.file_size
        else:
            raw = stack.enter_context(path.open("rb"))
            size = path.stat().st_size
        task = bar.add_task(member or path.name, total=size)
        counted: Any = io.BufferedReader(Counted(raw, bar, task), 1 << 20)
        if path.suffix == ".gz":
            counted = stack.enter_context(gzip.open(counted))
        yield counted


def check_md5(path: pathlib.Path, expected: str, member: str | None = None) -> None:
    """Exits if a file is not the published one."""
    digest = hashlib.md5()
    with opened(path, member) as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    if digest.hexdigest() != expected:
        sys.exit(
            f"error: {member or path} has the MD5 sum {digest.hexdigest()}, not the "
            f"published {expected}: it is damaged, or another version. "
            "--no-checksum skips this check."
        )


def csv_batches(
    file: IO[bytes],
    types: Mapping[str, pa.DataType],
    *,
    delimiter: str = ",",
    header: bool = True,
    null_values: Sequence[str] = ("",),
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a CSV file.

    Args:
      file: The file.
      types: Column -> type, in the file's order if it has no header.
      delimiter: The delimiter of cells.
      header: Whether the first row names the columns.
      null_values: Cells that mean a missing value.
      block_bytes: Bytes to read at a time.
    """
    reader = pyarrow.csv.open_csv(
        file,
        read_options=pyarrow.csv.ReadOptions(
            column_names=None if header else list(types),
            block_size=block_bytes,
            use_threads=False,
        ),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, quote_char=False),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict(types),
            include_columns=list(types),
            null_values=list(null_values),
            strings_can_be_null=True,
        ),
    )
    yield from reader


def batch(rows: Sequence[tuple], schema: pa.Schema) -> pa.RecordBatch:
    """Returns at least one row as columns."""
    columns = [
        pa.array(column, field.type)
        for column, field in zip(zip(*rows, strict=True), schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


class Splits:
    """Writes rows to `train.parquet`, `valid.parquet` and `test.parquet`.

    A row's split is drawn from the seed and the row's number alone. Unfinished files
    have the suffix `.partial`.

    Args:
      folder: The folder to write, created if missing.
      shares: Split -> its share; they sum to 1.
      seed: Seed of the draws.
    """

    def __init__(
        self, folder: pathlib.Path, shares: Mapping[str, float], seed: int = 0
    ) -> None:
        self._folder = folder
        self._names = list(shares)
        self._edges = np.cumsum(list(shares.values()))[:-1]
        self._rng = np.random.default_rng(seed)
        self._writers: dict[str, pq.ParquetWriter] = {}
        self.rows = dict.fromkeys(shares, 0)

    def write(self, batch: pa.RecordBatch) -> None:
        """Draws each row's split and writes it."""
        drawn = np.searchsorted(
            self._edges, self._rng.random(batch.num_rows), side="right"
        )
        for number, name in enumerate(self._names):
            self.write_to(name, batch.filter(pa.array(drawn == number)))

    def write_to(self, name: str, batch: pa.RecordBatch) -> None:
        """Writes rows to one split; its name may start with a folder."""
        if not batch.num_rows:
            return
        if name not in self._writers:
            path = self._folder / f"{name}.parquet.partial"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writers[name] = pq.ParquetWriter(
                path, batch.schema, compression="zstd"
            )
        self._writers[name].write_batch(batch, row_group_size=ROW_GROUP_ROWS)
        self.rows[name] = self.rows.get(name, 0) + batch.num_rows

    def close(self, *, quiet: bool = False) -> None:
        """Finishes the files, and prints their numbers of rows unless `quiet`."""
        for name, writer in self._writers.items():
            writer.close()
            path = self._folder / f"{name}.parquet"
            path.with_suffix(".parquet.partial").replace(path)
            if not quiet:
                print(f"{path}: {self.rows[name]:,} rows")


def shares(values: Sequence[float]) -> dict[str, float]:
    """Returns split -> share; exits if they do not sum to 1."""
    if len(values) != 3 or min(values) < 0 or abs(sum(values) - 1) > 1e-6:
        sys.exit(f"error: expected three shares that sum to 1, not {values}.")
    return dict(zip(("train", "valid", "test"), values, strict=True))
