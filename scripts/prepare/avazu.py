#!/usr/bin/env python3
"""Prepares data/avazu from the `train.csv` of Avazu's click-through rate challenge.

    scripts/prepare/avazu.py train.gz      # or train.csv, unpacked

The columns keep their names, except `id`, which carries no information and is dropped,
and `hour`, a date of the form YYMMDDHH, which becomes `hour` (0 to 23), `weekday` (0 is
Monday) and `is_weekend`. `click` is the label. A row's split depends only on the seed
and the row's number.
"""

import datetime
import pathlib

import numpy as np
import pyarrow as pa
import streaming

NUMBERS = (
    "click", "hour", "C1", "banner_pos", "device_type", "device_conn_type",
    *(f"C{i}" for i in range(14, 22)),
)  # fmt: skip
STRINGS = (
    "site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category",
    "device_id", "device_ip", "device_model",
)  # fmt: skip
TYPES = {
    **dict.fromkeys(NUMBERS, pa.int64()),
    **dict.fromkeys(STRINGS, pa.string()),
}


def main() -> None:
    """Runs the conversion."""
    streaming.convert_csv(make, __doc__, "avazu", "train.csv, or train.gz")


def make(
    source: pathlib.Path, output: pathlib.Path, shares: dict[str, float], seed: int
) -> None:
    """Writes the Parquet files."""
    splits = streaming.Splits(output, shares, seed)
    with streaming.opened(source) as file:
        for batch in streaming.csv_batches(file, TYPES):
            splits.write(with_times(batch))
    splits.close()


def with_times(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Splits `hour` into its recurring parts."""
    hours, places = np.unique(batch["hour"].to_numpy(), return_inverse=True)
    times = [datetime.datetime.strptime(f"{h:08}", "%y%m%d%H") for h in hours.tolist()]
    parts = {
        "hour": [time.hour for time in times],
        "weekday": [time.weekday() for time in times],
        "is_weekend": [int(time.weekday() >= 5) for time in times],
    }
    columns = {name: batch[name] for name in batch.schema.names}
    columns |= {
        name: pa.array(np.array(values, np.int64)[places])
        for name, values in parts.items()
    }
    return pa.RecordBatch.from_pydict(columns)


if __name__ == "__main__":
    main()
