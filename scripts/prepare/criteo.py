#!/usr/bin/env python3
"""Prepares data/criteo from the `train.txt` of Criteo's display advertising challenge.

    scripts/prepare/criteo.py train.txt                     # also train.txt.gz
    scripts/prepare/criteo.py train.txt --shares 0.9 0 0.1  # no valid split

The file has no header: a label, 13 counts and 26 hashed categories, separated by tabs;
all except the label may be missing. Columns are named `label`, `I1` to `I13` and `C1`
to `C26`; missing values are null. A row's split depends only on the seed and the row's
number.
"""

import pathlib

import pyarrow as pa
import streaming

TYPES = {
    "label": pa.int64(),
    **{f"I{i}": pa.int64() for i in range(1, 14)},
    **{f"C{i}": pa.string() for i in range(1, 27)},
}


def main() -> None:
    """Runs the conversion."""
    streaming.convert_csv(make, __doc__, "criteo", "train.txt, or train.txt.gz")


def make(
    source: pathlib.Path, output: pathlib.Path, shares: dict[str, float], seed: int
) -> None:
    """Writes the Parquet files."""
    splits = streaming.Splits(output, shares, seed)
    with streaming.opened(source) as file:
        for batch in streaming.csv_batches(file, TYPES, delimiter="\t", header=False):
            splits.write(batch)
    splits.close()


if __name__ == "__main__":
    main()
