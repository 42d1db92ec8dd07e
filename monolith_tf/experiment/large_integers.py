"""How a job's tables handle integers outside of [0, 2^48), decided once."""

import contextlib
import itertools
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging

from monolith_tf import ids as ids_lib
from monolith_tf.data import windows
from monolith_tf.data.batch_source import BatchSource
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.features import columns as columns_lib
from monolith_tf.features import encode
from monolith_tf.features import id_kinds
from monolith_tf.features.strings import StringCodes
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import run as run_lib
from monolith_tf.types import Tensor


class LargeIntegerError(ValueError):
    """An integer that its table does not take; the message says what to set."""


class _Found(NamedTuple):
    """An integer that a table does not take.

    Attributes:
      feature: The feature that has it.
      table: The feature's table.
      value: The integer.
      place: Where it is in the data.
    """

    feature: str
    table: str
    value: int
    place: str


def settle(
    checkpoint: checkpoint_lib.Checkpoint | None,
    tables: Sequence[TableSpec],
    id_types: Mapping[str, columns_lib.IdType],
) -> dict[str, ids_lib.LargeIntegers | None]:
    """Returns how each table of integers handles those outside of [0, 2^48).

    The setting of a checkpoint stays. A checkpoint of version 0.1.0 has no setting and
    may hold hashes of such integers, so its tables continue to hash.

    Args:
      checkpoint: The checkpoint from which the job resumes, or None.
      tables: The tables of the config.
      id_types: Table -> type of the values of its ids.

    Raises:
      CheckpointError: If the config has another setting than the checkpoint.
    """
    settled: dict[str, ids_lib.LargeIntegers | None] = {}
    for table in tables:
        if id_types.get(table.name) != "int":
            continue
        before = None
        if checkpoint is not None:
            before = id_kinds.kept(checkpoint.manifest["state"], table.name)
        given = table.large_integers
        if before is not None and given not in (None, before):
            hashes = (
                "may already hold such integers as hashes, so their values are lost"
                if before == "hash"
                else "holds ids of 64 bits"
            )
            raise checkpoint_lib.CheckpointError(
                f"`large_integers` of table `{table.name}` cannot become {given}: "
                f"{checkpoint.path if checkpoint else ''} {hashes}. Leave it out to "
                f"keep {before}, or train in another `model_dir`."
            )
        settled[table.name] = before or given
        if before == "hash" and given is None:
            logging.warning(
                "Table `%s` hashes integers outside of [0, 2^48) to 48 bits, as it did "
                "before: two of them may share a row. To avoid that, set "
                "`large_integers: exact` and train in another `model_dir`.",
                table.name,
            )
        if before == "exact" and given is None:
            logging.info(
                "Table `%s` keeps `large_integers: exact` from its checkpoint, since "
                "the config does not set it: all 64 bits of integers count.",
                table.name,
            )
    return settled


@contextlib.contextmanager
def explained(run: run_lib.Run, source: BatchSource) -> Iterator[None]:
    """Adds to a step's error which integer caused it, and what to do.

    Args:
      run: The run.
      source: The data of its steps.

    Raises:
      LargeIntegerError: In place of TensorFlow's error, if an integer caused it.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if encode.LARGE_INTEGER not in str(error):
            raise
        encoder = run.step.network.encoder
        message = _explanation(encoder, source, run.place(run.progress.batch))
        raise LargeIntegerError(message) from error


def _explanation(
    encoder: encode.FeatureEncoder,
    source: BatchSource,
    place: tuple[int, int, windows.Cut],
) -> str:
    """Returns which integer a table does not take, where it is, and what to do.

    Args:
      encoder: The features.
      source: The data.
      place: Epoch, batch in it, and how the epoch is cut, as `Run.place`; the batches
        before are known to be fine.
    """
    found = next(_search(encoder, source, place), None)
    what = (
        "An id is an integer outside of [0, 2^48), and its table"
        if found is None
        else f"{found.place}: feature `{found.feature}` has the integer {found.value}, "
        f"outside of [0, 2^48), and its table `{found.table}`"
    )
    return (
        f"{what} does not say how to handle such ids. Set `large_integers: exact` for "
        "the table (in `default_table` if `tables` does not list it) and run the same "
        "command: the job resumes from its last checkpoint, and all 64 bits count. "
        "With `large_integers: hash` they are hashed to 48 bits, where two may "
        "collide."
    )


def _search(
    encoder: encode.FeatureEncoder,
    source: BatchSource,
    place: tuple[int, int, windows.Cut],
) -> Iterator[_Found]:
    """Looks at the batches from a place on, and then at the epoch from its start."""
    epoch, first, cut_at_first = place
    features = [f for f in encoder.features if encoder.takes_no_large_integers(f)]
    for start, cut in ((first, cut_at_first), (0, windows.Cut())):
        batches = source.dataset(epoch, start, cut=cut)
        for batch, columns in zip(itertools.count(start), batches, strict=False):
            for feature in features:
                column = feature.source_column
                large = _place(columns[column])
                if large is None:
                    continue
                row, value = large
                where = source.row_place(epoch, batch, row, cut=cut)
                if source.is_unsigned(where.file, column):
                    value %= 1 << 64
                yield _Found(feature.name, feature.table_name, value, where.text)


def _place(column: Tensor) -> tuple[int, int] | None:
    """Returns the first row with an integer outside of [0, 2^48), and the integer."""
    if isinstance(column, StringCodes) or column.dtype == tf.string:
        return None
    flat = column.flat_values if isinstance(column, tf.RaggedTensor) else column
    values = np.asarray(flat)
    places = np.flatnonzero(values.astype(np.int64) >> ids_lib.HASH_BITS)
    if not len(places):
        return None
    first, row = places[0], places[0]
    if isinstance(column, tf.RaggedTensor):
        row = column.value_rowids().numpy()[first]
    return int(row), int(values[first])
