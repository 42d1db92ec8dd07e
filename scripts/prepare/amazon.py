#!/usr/bin/env python3
"""Makes data/amazon_beauty of Amazon reviews, 5-core, edition of 2014.

    scripts/prepare/amazon.py reviews_Beauty_5.json.gz meta_Beauty.json.gz

Both files are at https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/. Any
other category of products goes with `--output`. A user's reviews in order of time are
steps; every step but the first is predicted from those before it: a row with label 1,
and one with label 0 that has in its place an item the user never reviewed, all of them
alike likely. The last step of each user is in the test split, all others are in train.
`tuning` holds the same split of the train rows alone: settings chosen on its
`test.parquet` have seen nothing of the test rows.
A history holds the last 50 steps before, oldest first; an item's category is the most
special one of its last path, or 0 where it has none. Ids count from 1 as they come.
"""

import ast
import collections
import json
import operator
import pathlib
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import streaming

MAX_LENGTH = 50
ROWS_AT_A_TIME = 65_536
SCHEMA = pa.schema(
    [
        ("label", pa.int8()),
        ("user", pa.int32()),
        ("item", pa.int32()),
        ("category", pa.int32()),
        ("item_history", pa.list_(pa.int32())),
        ("category_history", pa.list_(pa.int32())),
    ]
)


def main() -> None:
    """Runs the conversion."""
    parser = streaming.parser(__doc__, "amazon_beauty", "reviews_Beauty_5.json.gz")
    parser.add_argument("metadata", type=pathlib.Path, help="meta_Beauty.json.gz")
    parser.add_argument("--seed", type=int, default=0, help="of the negatives")
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
    rng = np.random.default_rng(seed)
    splits = streaming.Splits(output, {"train": 0.5, "test": 0.5})
    rows: dict[str, list[tuple]] = collections.defaultdict(list)
    for user, steps in enumerate(users.values(), 1):
        history = [item for _, item in sorted(steps, key=operator.itemgetter(0))]
        for place in range(1, len(history)):
            after = len(history) - 1 - place
            before = history[max(0, place - MAX_LENGTH) : place]
            of_before = [categories[item] for item in before]
            shown = (history[place], _negative(rng, set(history), len(items)))
            for label, item in zip((1, 0), shown, strict=True):
                row = (label, user, item, categories[item], before, of_before)
                rows["train" if after else "test"].append(row)
                if after:
                    rows["tuning/train" if after > 1 else "tuning/test"].append(row)
        for split, found in rows.items():
            if len(found) >= ROWS_AT_A_TIME:
                splits.write_to(split, streaming.batch(found, SCHEMA))
                found.clear()
    for split, found in rows.items():
        if found:
            splits.write_to(split, streaming.batch(found, SCHEMA))
    splits.close()


def _objects(path: pathlib.Path) -> Iterator[Mapping[str, Any]]:
    """Yields a file's objects; those of the metadata are Python's, not JSON."""
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
    """Draws an item that is not among those seen."""
    if len(seen) == num_items:
        raise ValueError(f"A user has reviewed all {num_items} items.")
    while (item := int(rng.integers(1, num_items + 1))) in seen:
        pass
    return item


if __name__ == "__main__":
    main()
