"""The split of neural collaborative filtering: each user's last rating is held out."""

import itertools
import pathlib
import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

NUM_NEGATIVES = 99

Held = tuple[int, int, list[int]]
"""A user, the held-out item, and the items it is ranked among."""


def numbered(values: np.ndarray) -> np.ndarray:
    """Numbers the values from 0 in order of first appearance."""
    _, first, codes = np.unique(values, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[codes]


def hold_out(
    users: np.ndarray, items: np.ndarray, times: np.ndarray, seed: int = 0
) -> Iterator[Held]:
    """Yields each user's last item, with others that the user has not rated.

    Args:
      users: Numbers from 0, one per rating; users without ratings are skipped.
      items: Numbers from 0.
      times: Times of the ratings; ties keep the file's order.
      seed: Seed of the draws.
    """
    rng = np.random.default_rng(seed)
    order = np.lexsort((times, users))  # Stable: ties keep the file's order.
    starts = np.searchsorted(users[order], np.arange(users.max() + 2))
    others = np.arange(items.max() + 1)
    for user, (start, end) in enumerate(itertools.pairwise(starts)):
        if start == end:
            continue
        rated = items[order[start:end]]
        unseen = np.setdiff1d(others, rated)
        drawn = rng.choice(unseen, min(NUM_NEGATIVES, len(unseen)), replace=False)
        yield user, int(rated[-1]), drawn.tolist()


def published(path: pathlib.Path) -> Iterator[Held]:
    """Reads a `.test.negative` file: `(user,item)`, then items, separated by tabs."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            pair, *items = line.split()
            match = re.fullmatch(r"\((\d+),(\d+)\)", pair)
            if not match or not items:
                raise ValueError(
                    f"{path}:{number}: a line must be `(user,item)`, followed by "
                    f"items. Received: {line[:60]!r}."
                )
            yield int(match[1]), int(match[2]), [int(item) for item in items]


def test_rows(held: list[Held]) -> pa.RecordBatch:
    """Returns a row for each item to rank: `user`, `item`, and `label`, 1 or 0.

    An item that is drawn twice for a user, or is the held-out one, occurs once.
    """
    rows = [
        (user, candidate, int(candidate == item))
        for user, item, drawn in held
        for candidate in dict.fromkeys([item, *drawn])
    ]
    columns = [pa.array(column, pa.int64()) for column in zip(*rows, strict=True)]
    return pa.RecordBatch.from_arrays(columns, names=["user", "item", "label"])


def kept(users: np.ndarray, items: np.ndarray, held: list[Held]) -> np.ndarray:
    """Returns a mask of the ratings that are not held out, bool [ratings].

    Raises:
      ValueError: If a held-out item is not among the ratings.
    """
    num_items = items.max() + 1
    pairs = np.array([user * num_items + item for user, item, _ in held])
    mask = ~np.isin(users * num_items + items, pairs)
    if len(users) - mask.sum() != len(held):
        raise ValueError(
            "Every held-out item must be rated once by its user. Received: "
            f"{len(held)} items, {len(users) - mask.sum()} of them among the "
            "ratings. The file belongs to other ratings."
        )
    return mask
