"""Takes golden rows from what a job trains on, or from files."""

import pathlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from monolith_tf.config import schema
from monolith_tf.data.batch_source import BatchSource
from monolith_tf.experiment import build
from monolith_tf.export.named_inputs import NamedInputs
from monolith_tf.export.publish_spec import GuardSpec
from monolith_tf.features import labels as labels_lib
from monolith_tf.serving import golden as golden_lib
from monolith_tf.training import run as run_lib

_PARTS = 16  # A sample is of that many batches.
_FIRST_SECS = 2.0  # Between the batches of a job's first sample.


class GoldenSample:
    """Keeps a file of golden rows: a sample of the batches of the last while.

    Args:
      spec: How many rows, and of how long.
      job: The job.
      run: Its run.
      source: Its train split.
    """

    def __init__(
        self, spec: GuardSpec, job: build.Job, run: run_lib.Run, source: BatchSource
    ) -> None:
        self._spec = spec
        self._job = job
        self._run = run
        self._source = source
        self._path = run.model_dir / golden_lib.FILE
        self._is_full = self._path.exists()
        self._pieces: list[Mapping[str, Any]] = []
        self._next = 0.0 if not self._is_full else time.monotonic()
        self._can_read = True

    def tick(self) -> None:
        """Takes rows of the last batch if it is time; call it between steps."""
        now = time.monotonic()
        if not self._can_read or now < self._next or not self._run.progress.batch:
            return
        part = self._spec.window_secs / _PARTS
        self._next = now + (part if self._is_full else min(part, _FIRST_SECS))
        try:
            self._pieces.append(self._last_rows())
            if len(self._pieces) >= _PARTS or not self._is_full:
                rows(self._job, self._pieces).write(self._path)
            if len(self._pieces) >= _PARTS:
                self._is_full, self._pieces = True, []
        except Exception as error:  # Training must go on.
            self._can_read = False
            logging.warning(
                "publish | Cannot take golden rows, so only numbers that are not "
                "finite are refused: %s",
                error,
            )

    def drop(self) -> None:
        """Forgets the rows since the last sample: their labels may be wrong."""
        if self._is_full:
            self._pieces = []

    def _last_rows(self) -> dict[str, Any]:
        """Returns some rows of the last batch: column -> values."""
        epoch, place, cut = self._run.place(self._run.progress.batch - 1)
        dataset = self._source.dataset(epoch, place, cut=cut)
        columns = next(iter(dataset))
        count = -(-self._spec.rows // _PARTS)
        return {name: value[:count] for name, value in columns.items()}


def rows(job: build.Job, pieces: list[Mapping[str, Any]]) -> golden_lib.GoldenRows:
    """Returns golden rows of raw columns.

    Args:
      job: The job.
      pieces: Column -> values, of some rows each.
    """
    columns = {
        name: tf.concat([piece[name] for piece in pieces], axis=0) for name in pieces[0]
    }
    labels = labels_lib.encode_labels(job.config.labels, columns)
    inputs = NamedInputs(job.feature_columns, job.config.export.list_inputs)
    return golden_lib.GoldenRows(
        inputs.encode({name: columns[name] for name in job.feature_columns}),
        {
            name: np.asarray(value, np.float32)
            for name, value in labels.items()
            if value.shape.rank == 1
        },
    )


def of_files(
    config: schema.ExperimentConfig, path: pathlib.Path, limit: int
) -> golden_lib.GoldenRows:
    """Returns the first rows of the test split as golden rows, and writes them.

    Args:
      config: The config, whose test split has the rows.
      path: Where they are written, as `golden.GoldenRows` is.
      limit: How many rows at most.
    """
    job = build.Job(config)
    source = job.source("test")
    pieces: list[Mapping[str, Any]] = []
    count = 0
    for columns in source.dataset(shuffle=False):
        size = int(next(iter(columns.values())).shape[0])
        some = {name: value[: limit - count] for name, value in columns.items()}
        pieces.append(some)
        count += min(size, limit - count)
        if count >= limit:
            break
    found = rows(job, pieces)
    found.write(path)
    return found
