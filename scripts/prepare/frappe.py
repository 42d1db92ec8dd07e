#!/usr/bin/env python3
"""Prepares data/frappe from the Frappe_x1 split that BARS publishes.

    scripts/prepare/frappe.py Frappe_x1.zip      # or the folder with its CSV files

Download: https://zenodo.org/record/5700987/files/Frappe_x1.zip. Its three CSV files are
checked against the published MD5 sums. The `.libfm` files of the same data also work:
there a label is 1 or -1, and `:1` follows each id.
"""

import pathlib
from collections.abc import Iterator
from typing import IO

import pyarrow as pa
import streaming

COLUMNS = (
    "label", "user", "item", "daytime", "weekday", "isweekend", "homework", "cost",
    "weather", "country", "city",
)  # fmt: skip
TYPES = dict.fromkeys(COLUMNS, pa.int64())
MD5 = {
    "train": "ba7306e6c4fc19dd2cd84f2f0596d158",
    "valid": "88d51bf2173505436d3a8f78f2a59da8",
    "test": "3470f6d32713dc5f7715f198ca7c612a",
}
LIBFM = {
    "train": "frappe.train.libfm",
    "valid": "frappe.validation.libfm",
    "test": "frappe.test.libfm",
}
LINES_AT_A_TIME = 65_536


def main() -> None:
    """Runs the conversion."""
    parser = streaming.parser(__doc__, "frappe", "the zip file, or a folder")
    parser.add_argument("--no-checksum", action="store_true")
    arguments = parser.parse_args()
    make(arguments.source, arguments.output, check=not arguments.no_checksum)


def make(source: pathlib.Path, output: pathlib.Path, *, check: bool = True) -> None:
    """Writes the three Parquet files."""
    splits = streaming.Splits(output, dict.fromkeys(MD5, 1 / 3))
    for split, md5 in MD5.items():
        is_zip = source.suffix == ".zip"
        is_libfm = not is_zip and (source / LIBFM[split]).exists()
        path = source if is_zip else source / f"{split}.csv"
        member = f"{split}.csv" if is_zip else None
        if is_libfm:
            path = source / LIBFM[split]
        elif check:
            streaming.check_md5(path, md5, member)
        with streaming.opened(path, member) as file:
            batches = libfm(file) if is_libfm else streaming.csv_batches(file, TYPES)
            for batch in batches:
                splits.write_to(split, batch)
    splits.close()


def libfm(file: IO[bytes]) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a `.libfm` file in batches."""
    rows: list[list[int]] = []
    for line in file:
        label, *ids = line.split()
        row = [int(float(label) > 0), *(int(id_.split(b":")[0]) for id_ in ids)]
        if len(row) != len(COLUMNS):
            raise ValueError(f"A row must have 10 ids. Received: {line.decode()!r}.")
        rows.append(row)
        if len(rows) == LINES_AT_A_TIME:
            yield _batch(rows)
            rows = []
    if rows:
        yield _batch(rows)


def _batch(rows: list[list[int]]) -> pa.RecordBatch:
    columns = [pa.array(c, pa.int64()) for c in zip(*rows, strict=True)]
    return pa.RecordBatch.from_arrays(columns, names=list(COLUMNS))


if __name__ == "__main__":
    main()
