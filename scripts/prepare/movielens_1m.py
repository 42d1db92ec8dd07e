#!/usr/bin/env python3
"""Makes data/ml1m of MovieLens-1M's `ml-1m.zip`.

    scripts/prepare/movielens_1m.py ml-1m.zip

Download: https://files.grouplens.org/datasets/movielens/ml-1m.zip, whose MD5 sum is
published. `ratings.parquet` holds a row for each rating in the file's order, with what
is known of the user and the movie beside it; genres are a list.
"""

import pathlib
from collections.abc import Iterator

import pyarrow as pa
import streaming

MD5 = "c4d9eecfca2ab87c1945afe126590906"
LINES_AT_A_TIME = 65_536
SCHEMA = pa.schema(
    [
        ("user", pa.int64()),
        ("movie", pa.int64()),
        ("rating", pa.int64()),
        ("timestamp", pa.int64()),
        ("gender", pa.string()),
        ("age", pa.int64()),
        ("occupation", pa.int64()),
        ("zip_code", pa.string()),
        ("title", pa.string()),
        ("genres", pa.list_(pa.string())),
    ]
)


def main() -> None:
    """Runs the conversion."""
    parser = streaming.parser(__doc__, "ml1m", "ml-1m.zip")
    parser.add_argument("--no-checksum", action="store_true")
    arguments = parser.parse_args()
    make(arguments.source, arguments.output, check=not arguments.no_checksum)


def make(source: pathlib.Path, output: pathlib.Path, *, check: bool = True) -> None:
    """Writes the Parquet file."""
    if check:
        streaming.check_md5(source, MD5)
    users = {
        int(user): (gender, int(age), int(occupation), zip_code)
        for user, gender, age, occupation, zip_code in _lines(source, "users.dat")
    }
    movies = {
        int(movie): (title, genres.split("|"))
        for movie, title, genres in _lines(source, "movies.dat")
    }
    splits = streaming.Splits(output, {"ratings": 1.0})
    rows: list[tuple] = []
    for line in _lines(source, "ratings.dat"):
        user, movie, rating, timestamp = map(int, line)
        rows.append((user, movie, rating, timestamp, *users[user], *movies[movie]))
        if len(rows) == LINES_AT_A_TIME:
            splits.write_to("ratings", _batch(rows))
            rows = []
    if rows:
        splits.write_to("ratings", _batch(rows))
    splits.close()


def _lines(source: pathlib.Path, member: str) -> Iterator[list[str]]:
    with streaming.opened(source, member) as file:
        for line in file:
            yield line.decode("latin-1").rstrip("\r\n").split("::")


def _batch(rows: list[tuple]) -> pa.RecordBatch:
    columns = [
        pa.array(column, field.type)
        for column, field in zip(zip(*rows, strict=True), SCHEMA, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


if __name__ == "__main__":
    main()
