#!/usr/bin/env python3
"""Prepares data/ml1m from MovieLens-1M's `ml-1m.zip`.

    scripts/prepare/movielens_1m.py ml-1m.zip
    scripts/prepare/movielens_1m.py ml-1m.zip --negatives ml-1m.test.negative

Download: https://files.grouplens.org/datasets/movielens/ml-1m.zip, whose MD5 sum is
published. `ratings.parquet` has a row for each rating in the file's order, with the
columns of its user and movie; genres are a list.

`train.parquet` and `test.parquet` are the split of neural collaborative filtering:
each user's last rating is held out, to be ranked among 99 movies that the user has not
rated. Users and items are numbered from 0 in the order of the file. The published
split, which many papers use, breaks ties of time in its own way, and has fixed drawn
movies: see `ml-1m.test.negative` in
https://github.com/hexiangnan/neural_collaborative_filtering/tree/master/Data.
`tuning` has the same split of the train rows alone: settings chosen on its
`test.parquet` have not seen the test rows.

`by_time` has another split of the rows of `ratings.parquet`: of each user's ratings in
time order the first 80 % are in `train.parquet`, then 10 % in `valid.parquet` and 10 %
in `test.parquet`. `history` has the last 20 movies that the user rated before, oldest
first. `user_folded` and `movie_folded` are hashes of the ids into so few values that
about the same share collides as in the experiment of the Monolith paper.
"""

import pathlib
from collections.abc import Iterator

import in_time_order
import leave_one_out
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import streaming

MD5 = "c4d9eecfca2ab87c1945afe126590906"
LINES_AT_A_TIME = 65_536
SHARES = (0.8, 0.1, 0.1)
HISTORY_LENGTH = 20
BUCKETS = {"user": 36_000, "movie": 60_000}
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
    parser.add_argument("--negatives", type=pathlib.Path, help="ml-1m.test.negative")
    arguments = parser.parse_args()
    check = not arguments.no_checksum
    make(arguments.source, arguments.output, arguments.negatives, check=check)


def make(
    source: pathlib.Path,
    output: pathlib.Path,
    negatives: pathlib.Path | None = None,
    *,
    check: bool = True,
) -> None:
    """Writes the Parquet files."""
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
    given: list[np.ndarray] = []
    for line in _lines(source, "ratings.dat"):
        user, movie, rating, timestamp = map(int, line)
        rows.append((user, movie, rating, timestamp, *users[user], *movies[movie]))
        if len(rows) == LINES_AT_A_TIME:
            given.append(_write(splits, rows))
            rows = []
    if rows:
        given.append(_write(splits, rows))
    user, movie, ratings, times = np.concatenate(given, axis=1)
    numbers = leave_one_out.numbered(user), leave_one_out.numbered(movie)
    if negatives is not None:
        held = list(leave_one_out.published(negatives))
    else:
        held = list(leave_one_out.hold_out(*numbers, times))
    known = np.stack([*numbers, ratings, times])
    known = _hold_out(splits, "", known, held)
    if known.size:
        held = list(leave_one_out.hold_out(known[0], known[1], known[3]))
        _hold_out(splits, "tuning/", known, held)
    splits.close()
    _split_by_time(output)


def _hold_out(
    splits: streaming.Splits,
    folder: str,
    known: np.ndarray,
    held: list[leave_one_out.Held],
) -> np.ndarray:
    """Writes `train` and `test`; returns the columns of the train rows.

    Args:
      splits: The writer.
      folder: The folder of the two files: empty, or a name and a slash.
      known: Users, items, ratings and times, int64 [4, ratings].
      held: The held-out items.
    """
    known = known[:, leave_one_out.kept(known[0], known[1], held)]
    columns = dict(zip(("user", "item", "rating"), map(pa.array, known), strict=False))
    splits.write_to(f"{folder}train", pa.RecordBatch.from_pydict(columns))
    splits.write_to(f"{folder}test", leave_one_out.test_rows(held))
    return known


def _split_by_time(folder: pathlib.Path) -> None:
    """Writes the rows of `ratings.parquet` to `by_time`."""
    rows = pq.read_table(folder / "ratings.parquet").combine_chunks()
    order, places = in_time_order.ranks(
        rows["user"].to_numpy(), rows["timestamp"].to_numpy()
    )
    rows = rows.take(order)
    for name, num_buckets in BUCKETS.items():
        folded = in_time_order.folded(rows[name].to_numpy(), num_buckets)
        rows = rows.append_column(f"{name}_folded", pa.array(folded))
    movies = rows["movie"].to_numpy()
    numbers = in_time_order.split_numbers(places, SHARES)
    shares = dict(zip(in_time_order.SPLITS, SHARES, strict=True))
    splits = streaming.Splits(folder / "by_time", shares)
    for start in range(0, len(rows), LINES_AT_A_TIME):
        end = min(start + LINES_AT_A_TIME, len(rows))
        history = in_time_order.histories(movies, places, start, end, HISTORY_LENGTH)
        piece = rows.slice(start, end - start).append_column("history", history)
        for number, name in enumerate(in_time_order.SPLITS):
            found = piece.filter(pa.array(numbers[start:end] == number))
            for batch in found.combine_chunks().to_batches():
                splits.write_to(name, batch)
    splits.close()


def _write(splits: streaming.Splits, rows: list[tuple]) -> np.ndarray:
    """Writes rows; returns users, movies, ratings and times, int64 [4, rows]."""
    splits.write_to("ratings", streaming.batch(rows, SCHEMA))
    return np.array([row[:4] for row in rows], np.int64).T


def _lines(source: pathlib.Path, member: str) -> Iterator[list[str]]:
    with streaming.opened(source, member) as file:
        for line in file:
            yield line.decode("latin-1").rstrip("\r\n").split("::")


if __name__ == "__main__":
    main()
