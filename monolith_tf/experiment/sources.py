"""The splits that a job reads: opened, counted, sampled."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from monolith_tf.data import feed as feed_lib
from monolith_tf.data import rows as rows_lib
from monolith_tf.data.batch_source import BatchSource
from monolith_tf.data.spec import Split
from monolith_tf.data.stream import span_feed
from monolith_tf.distribute import cluster as cluster_lib
from monolith_tf.experiment import build
from monolith_tf.experiment import evaluated_on


class Sources:
    """Opens splits, and remembers the last source of each.

    Args:
      job: The job.
      cluster: Whose workers read; None for this process.

    Attributes:
      trained_rows: Rows of the eval split that were trained on before they were held
        out.
    """

    def __init__(self, job: build.Job, cluster: cluster_lib.Cluster | None) -> None:
        self._job = job
        self._cluster = cluster
        self._last: dict[str, BatchSource] = {}
        self.trained_rows = 0

    def open(self, split: Split) -> BatchSource:
        """Opens a split of the data."""
        source = self._last[split] = self._job.source(split)
        if self._cluster is not None:
            self.feed.files[split] = source.files_digest()
        return source

    @functools.cached_property
    def feed(self) -> feed_lib.Feed:
        """The description of the cluster workers' feeders."""
        cluster = self._cluster
        tokens = ("", "") if cluster is None else cluster.feed_tokens
        return feed_lib.Feed(
            tokens, self._job.columns, self._job.config.data.batch_size
        )

    @functools.cached_property
    def span_feed(self) -> span_feed.SpanFeed:
        """The description of the cluster workers' readers of a topic."""
        return span_feed.SpanFeed(
            self.feed.tokens[2:],
            self._job.columns,
            self._job.config.data.batch_size,
        )

    def counts(self) -> dict[str, int]:
        """Returns the readers' counts, as `<split>/<name>`."""
        found = {
            f"{split}/{name}": value
            for split, source in self._last.items()
            for name, value in source.counts().items()
        }
        if self.trained_rows:
            found["eval/trained_rows"] = self.trained_rows
        if self._cluster is None:
            return found
        for split, heard in self.feed.filled.items():  # Rows that workers read.
            filled = {**self._last[split].filled, **heard}
            counts = rows_lib.count_filled(filled, self._job.columns)
            found |= {f"{split}/{name}": value for name, value in counts.items()}
        return found

    def evaluated_on(self) -> dict[str, Any]:
        """Returns what the last evaluation of the eval split was of."""
        source = self._last.get("eval")
        marks = () if source is None else source.marks
        return evaluated_on.of(self._job.config, marks)

    def sample(self, rows: int) -> dict[str, Any] | None:
        """Returns the first rows of the data, with the inputs of a server.

        Args:
          rows: How many at most; 0 for None.

        Returns:
          Column -> values; None if the job has no data.
        """
        data = self._job.config.data
        splits: tuple[Split, ...] = ("test", "eval", "train")
        split = next((s for s in splits if data.has(s)), None)
        if not rows or split is None:
            return None
        source = self._job.source(split)
        with plain_errors(source):
            batch = next(iter(source.dataset(shuffle=False)))
        return {name: batch[name][:rows] for name in self._job.feature_columns}


@contextlib.contextmanager
def plain_errors(source: BatchSource) -> Iterator[None]:
    """Raises a reader's own error in place of TensorFlow's error around it."""
    try:
        yield
    except tf.errors.OpError as error:
        if source.failure is None:
            raise
        raise source.failure from error
