#!/usr/bin/env python3
"""Prepares data/taobao_ad from the ad display and click data of Taobao.com.

    scripts/prepare/taobao_ad.py raw_sample.csv
    scripts/prepare/taobao_ad.py raw_sample.csv --behaviors behavior_log.csv

Download, with an account: https://tianchi.aliyun.com/dataset/56; no checksums are
published. `ad_feature.csv` and `user_profile.csv` must be next to `raw_sample.csv`. A
row is an ad that was shown: `clk` is the label, with the known columns of the ad and
the user, null if unknown. The seven days to 12 May 2017 are train and the eighth is
test, in Beijing time. Columns keep their names.

With the behaviors, `cate_history`, `brand_history` and `btag_history` are the user's
last 50 before the row's second, oldest first. Rows and behaviors are partitioned by
user into temporary files below the output folder; one part at a time is in memory, and
the output rows are ordered by part.
"""

import pathlib
import sys
import tempfile
from collections.abc import Iterator
from collections.abc import Mapping

import in_time_order
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import streaming

TEST_BEGINS = 1_494_604_800  # 13 May 2017, 0:00 in Beijing.
MAX_LENGTH = 50
NUM_PARTS = 64
SHOWN = {
    "user": pa.int32(),
    "time_stamp": pa.int64(),
    "adgroup_id": pa.int32(),
    "pid": pa.string(),
    "nonclk": pa.int8(),
    "clk": pa.int8(),
}
ADS = {
    **dict.fromkeys(("adgroup_id", "cate_id", "campaign_id", "customer"), pa.int32()),
    "brand": pa.int32(),
    "price": pa.float64(),
}
USERS = dict.fromkeys(
    (
        "userid", "cms_segid", "cms_group_id", "final_gender_code", "age_level",
        "pvalue_level", "shopping_level", "occupation", "new_user_class_level",
    ),
    pa.int32(),
)  # fmt: skip
BEHAVIORS = {
    "user": pa.int32(),
    "time_stamp": pa.int64(),
    "btag": pa.string(),
    "cate": pa.int32(),
    "brand": pa.int32(),
}


def main() -> None:
    """Runs the conversion."""
    parser = streaming.parser(__doc__, "taobao_ad", "raw_sample.csv")
    parser.add_argument("--behaviors", type=pathlib.Path, help="behavior_log.csv")
    arguments = parser.parse_args()
    make(arguments.source, arguments.output, arguments.behaviors)


def make(
    source: pathlib.Path, output: pathlib.Path, behaviors: pathlib.Path | None = None
) -> None:
    """Writes both Parquet files."""
    ads = _table(source.with_name("ad_feature.csv"), ADS)
    users = _table(source.with_name("user_profile.csv"), USERS)
    splits = streaming.Splits(output, {"train": 0.5, "test": 0.5})
    rows = (_joined(batch, ads, users) for batch in _batches(source, SHOWN))
    if behaviors is None:
        for batch in rows:
            _write(splits, batch)
    else:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output, prefix="parts-") as folder:
            parts = streaming.Splits(pathlib.Path(folder), {})
            for batch in rows:
                _part(parts, "shown", batch)
            for batch in _batches(behaviors, BEHAVIORS):
                _part(parts, "log", batch)
            parts.close(quiet=True)
            for number in range(NUM_PARTS):
                shown, log = (
                    pathlib.Path(folder, f"{name}-{number}.parquet")
                    for name in ("shown", "log")
                )
                if shown.exists():
                    made = with_histories(pq.read_table(shown), _read(log, BEHAVIORS))
                    for batch in made.combine_chunks().to_batches():
                        _write(splits, batch)
    splits.close()


def with_histories(shown: pa.Table, log: pa.Table) -> pa.Table:
    """Adds to each row the user's last behaviors before it."""
    log = log.sort_by([("user", "ascending"), ("time_stamp", "ascending")])
    users = shown["user"].to_numpy().astype(np.int64) << 32
    keys = (log["user"].to_numpy().astype(np.int64) << 32) + log[
        "time_stamp"
    ].to_numpy()
    starts = np.searchsorted(keys, users)
    ends = np.searchsorted(keys, users + shown["time_stamp"].to_numpy())
    for name in ("cate", "brand", "btag"):
        values = log[name].combine_chunks()
        lists = in_time_order.last(values, starts, ends, MAX_LENGTH)
        shown = shown.append_column(f"{name}_history", lists)
    return shown


def _batches(
    path: pathlib.Path, types: Mapping[str, pa.DataType]
) -> Iterator[pa.RecordBatch]:
    """Yields a file's rows; exits if the header is not the expected one."""
    with streaming.opened(path) as file:
        names = [name.strip() for name in file.readline().decode().split(",")]
        if names != list(types):
            sys.exit(
                f"error: {path}:1: the columns must be {','.join(types)}. Received: "
                f"{','.join(names)[:200]}. It is not the expected file."
            )
        yield from streaming.csv_batches(
            file, types, header=False, null_values=("", "NULL")
        )


def _table(path: pathlib.Path, types: Mapping[str, pa.DataType]) -> pa.Table:
    """Returns a file's rows sorted by their key, the first column."""
    table = pa.Table.from_batches(_batches(path, types), pa.schema(list(types.items())))
    return table.sort_by(next(iter(types))).combine_chunks()


def _read(path: pathlib.Path, types: Mapping[str, pa.DataType]) -> pa.Table:
    """Returns the rows of a part; none if there is no file."""
    schema = pa.schema(list(types.items()))
    return pq.read_table(path) if path.exists() else schema.empty_table()


def _joined(batch: pa.RecordBatch, ads: pa.Table, users: pa.Table) -> pa.RecordBatch:
    """Adds the columns of the ad and the user to each row."""
    columns = {name: batch[name] for name in SHOWN if name != "nonclk"}
    for name, table in (("adgroup_id", ads), ("user", users)):
        key, *others = table.column_names
        known, wanted = table[key].to_numpy(), batch[name].to_numpy()
        places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        found = pa.array(places, mask=known[places] != wanted)
        for other in others:
            columns[other] = table[other].combine_chunks().take(found)
    return pa.RecordBatch.from_pydict(columns)


def _part(parts: streaming.Splits, name: str, batch: pa.RecordBatch) -> None:
    numbers = batch["user"].to_numpy() % NUM_PARTS
    for number in np.unique(numbers).tolist():
        parts.write_to(f"{name}-{number}", batch.filter(pa.array(numbers == number)))


def _write(splits: streaming.Splits, batch: pa.RecordBatch) -> None:
    is_test = pc.greater_equal(batch["time_stamp"], TEST_BEGINS)
    splits.write_to("train", batch.filter(pc.invert(is_test)))
    splits.write_to("test", batch.filter(is_test))


if __name__ == "__main__":
    main()
