#!/usr/bin/env python3
"""Prepares data/amazon_beauty from Amazon reviews, 5-core, edition of 2014.

    scripts/prepare/amazon.py reviews_Beauty_5.json.gz meta_Beauty.json.gz

Both files are at https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/. For
another product category set `--output`. A user's reviews in time order are steps; every
step except the first is predicted from those before it. The last step of each user is
in the test split: a row with label 1, and one with label 0 and another item, drawn
uniformly from those the user never reviewed. All others are in train, without labels:
`data.negatives` draws other items for them, new ones in every epoch. `drawn_once` has
the rows of train with label 1, each followed by one with label 0 and an item drawn for
all epochs. `tuning` has the same files of the train rows alone: settings chosen on its
`test.parquet` have not seen the test rows. A history has the last 50 steps before,
oldest first; an item's category is the most specific one of its last path, or 0 without
one. Ids are numbered from 1 in order of appearance.
"""

import ast
import collections
import json
import operator
import pathlib
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import streaming

MAX_LENGTH = 50
ROWS_AT_A_TIME = 65_536
STEPS = pa.schema(
    [
        ("user", pa.int32()),
        ("item", pa.int32()),
        ("category", pa.int32()),
        ("item_history", pa.list_(pa.int32())),
        ("category_history", pa.list_(pa.int32())),
    ]
)
LABELLED = STEPS.append(pa.field("label", pa.int8()))
SCHEMAS = {"train": STEPS, "drawn_once": LABELLED, "test": LABELLED}


def main() -> None:
    """Runs the conversion."""
    parser = streaming.parser(__doc__, "amazon_beauty", "reviews_Beauty_5.json.gz")
    parser.add_argument("metadata", type=pathlib.Path, help="meta_Beauty.json.gz")
    parser.add_argument("--seed", type=int, default=0, help="seed of the negatives")
    arguments = parser.parse_args()
    make(arguments.source, arguments.metadata, arguments.output, arguments.seed)


def make(
    source: pathlib.Path, metadata: pathlib.Path, output: pathlib.Path, seed: int
) -> None:
    """Writes the Parquet files."""
    items: dict[str, int] = {}
    users: dict[str, list[tuple[int, int]]] = {}
    for review in _objects(source):
        item = items.setdefault(review["asin"], len(items) + 1)
        step = (review["unixReviewTime"], item)
        users.setdefault(review["reviewerID"], []).append(step)
    categories = _categories(metadata, items)
    # One for each file: the test rows do not depend on draws for others.
    rngs = {"test": np.random.default_rng(seed)}
    rngs["drawn_once"] = np.random.default_rng((seed, 1))
    splits = streaming.Splits(output, {"train": 0.5, "test": 0.5})
    rows: dict[str, list[tuple]] = collections.defaultdict(list)
    for user, steps in enumerate(users.values(), 1):
        history = [item for _, item in sorted(steps, key=operator.itemgetter(0))]
        for folder, known in (("", history), ("tuning/", history[:-1])):
            for split, row in _steps(user, known, categories, rngs):
                rows[folder + split].append(row)
        _write(splits, rows, ROWS_AT_A_TIME)
    _write(splits, rows, 1)
    splits.close()


def _steps(
    user: int,
    history: Sequence[int],
    categories: Sequence[int],
    rngs: Mapping[str, np.random.Generator],
) -> Iterator[tuple[str, tuple]]:
    """Yields the files and rows of each step, and of the items drawn for it."""
    for place in range(1, len(history)):
        before = history[max(0, place - MAX_LENGTH) : place]
        of_before = [categories[item] for item in before]
        item = history[place]
        row = (user, item, categories[item], before, of_before)
        split = "test"
        if place < len(history) - 1:
            split = "drawn_once"
            yield "train", row
        other = _negative(rngs[split], set(history), len(categories) - 1)
        yield split, (*row, 1)
        yield split, (user, other, categories[other], before, of_before, 0)


def _write(
    splits: streaming.Splits, rows: Mapping[str, list[tuple]], at_least: int
) -> None:
    """Writes and clears the rows of splits that have at least `at_least`."""
    for split, found in rows.items():
        if len(found) >= at_least:
            schema = SCHEMAS[split.removeprefix("tuning/")]
            splits.write_to(split, streaming.batch(found, schema))
            found.clear()


def _objects(path: pathlib.Path) -> Iterator[Mapping[str, Any]]:
    """Yields a file's objects; the metadata have Python literals, not JSON."""
    with streaming.opened(path) as file:
        for line in file:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                yield ast.literal_eval(line.decode())


def _categories(path: pathlib.Path, items: Mapping[str, int]) -> list[int]:
    """Returns the category of each item, by its id."""
    names: dict[str, int] = {}
    found = [0] * (len(items) + 1)
    for product in _objects(path):
        item, paths = items.get(product["asin"]), product.get("categories")
        if item is not None and paths and paths[-1]:
            found[item] = names.setdefault(paths[-1][-1], len(names) + 1)
    return found


def _negative(rng: np.random.Generator, seen: set[int], num_items: int) -> int:
    """Draws an item that is not in `seen`."""
    if len(seen) == num_items:
        raise ValueError(f"A user has reviewed all {num_items} items.")
    while (item := int(rng.integers(1, num_items + 1))) in seen:
        pass
    return item


if __name__ == "__main__":
    main()
