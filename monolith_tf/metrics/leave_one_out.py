"""Ranks of held-out items among sampled negatives, by the NCF protocol."""

import numpy as np
import numpy.typing as npt

from monolith_tf.metrics.base import Array


def leave_one_out_ranks(
    scores: npt.ArrayLike, items: npt.ArrayLike | None = None
) -> Array:
    """Ranks each user's held-out item among its candidates.

        rank = number of candidates that score at least as high as the held-out item

    so ties go against the held-out item; then

        HR@k   = mean(rank < k)
        NDCG@k = mean(where(rank < k, ln 2 / ln(rank + 2), 0))

    The protocol identifies candidates by item, so a candidate drawn twice counts once,
    and the held-out item itself does not count; pass `items` for this. If no candidate
    repeats, `HitRate` and `NDCG` with a label of 1 for the held-out row return the same
    numbers. NaN scores rank last.

    Source: He et al., "Neural Collaborative Filtering", WWW 2017, section 4.1
    (arXiv:1708.05031).

    Args:
      scores: `[users, 1 + candidates]`, the held-out item in column 0.
      items: Optional item ids of the same shape.

    Returns:
      `[users]`, int64, from 0.

    Raises:
      ValueError: If the shapes are not as above.

    Example:
      >>> leave_one_out_ranks([[0.2, 0.1, 0.9, 0.3, 0.8]]).tolist()
      [3]
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or scores.shape[1] < 1:
        raise ValueError(
            "`scores` must have shape [users, 1 + candidates]. "
            f"Received: scores of shape {scores.shape}."
        )
    scores = np.where(np.isnan(scores), -np.inf, scores)
    counted = np.ones(scores.shape, bool)
    if items is not None:
        items = np.asarray(items)
        if items.shape != scores.shape:
            raise ValueError(
                f"`items` must have the shape of `scores`, {scores.shape}. "
                f"Received: items of shape {items.shape}."
            )
        order = np.argsort(items, axis=1, kind="stable")
        ordered = np.take_along_axis(items, order, axis=1)
        repeated = np.zeros(scores.shape, bool)
        repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
        # The sort is stable: of equal items the leftmost is not a repetition.
        np.put_along_axis(counted, order, ~repeated, axis=1)
    ahead = (scores[:, 1:] >= scores[:, :1]) & counted[:, 1:]
    return ahead.sum(axis=1, dtype=np.int64)
