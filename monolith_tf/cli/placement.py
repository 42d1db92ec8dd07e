"""Estimates the memory of embedding tables from the config alone."""

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from monolith_tf.cli import inspect
from monolith_tf.cli import tables

if TYPE_CHECKING:
    from monolith_tf.config import schema
    from monolith_tf.embedding import optimizer_spec
    from monolith_tf.embedding import spec as embedding

# Update rule -> floats of state: per weight, and more per row.
_STATE = {
    "sgd": (0, 0),
    "moving_average": (0, 0),
    "adagrad": (1, 0),
    "rmsprop": (1, 0),
    "rmsprop_v2": (1, 0),
    "rowwise_adagrad": (0, 1),
    "group_adagrad": (0, 1),
    "adadelta": (2, 0),
    "adam": (2, 2),
    "amsgrad": (3, 2),
    "momentum": (1, 0),
    "momentum_nesterov": (1, 0),
    "ftrl": (2, 0),
    "group_ftrl": (2, 0),
    "lion": (1, 0),
    "batch_softmax": (0, 1),
}
# The id beside its row (8 bytes), and the entry of the hash table that finds the row:
# 16 bytes of key and value, and the table's free space.
_INDEX_BYTES = 8 + 43


@dataclasses.dataclass(frozen=True)
class TablePlacement:
    """Where a table is and how much memory it needs.

    Attributes:
      table: Its name.
      slot: Its slot, or None if the job assigns one when it first runs.
      dim: Weights of a row.
      features: The features that read it.
      row_bytes: Memory of a row: weights, optimizer state, bookkeeping, index.
      max_bytes: Its largest memory, or None if the table has no limit.
      device: Where its rows are.
    """

    table: str
    slot: int | None
    dim: int
    features: tuple[str, ...]
    row_bytes: int
    max_bytes: int | None
    device: str


def placements(config: "schema.ExperimentConfig") -> Iterator[TablePlacement]:
    """Yields the placement of each table of a job."""
    from monolith_tf.config import schema

    device = "this process, CPU"
    if config.cluster is not None:
        last = config.cluster.ps - 1
        device = "ps 0" if last == 0 else f"ps 0 to {last}, by hash of the id"
    used = schema.features_of_tables(config)
    for table in schema.resolved_tables(config):
        yield TablePlacement(
            table=table.name,
            slot=table.slot,
            dim=table.row_dim,
            features=used.get(table.name, ()),
            row_bytes=row_bytes(table),
            max_bytes=_max_bytes(table),
            device=device,
        )


def row_bytes(table: "embedding.TableSpec") -> int:
    """Returns the memory of one row, index included."""
    return _stored_bytes(table) + _INDEX_BYTES


def state_dim(optimizer: "optimizer_spec.RowOptimizerSpec", dim: int) -> int:
    """Returns the floats of optimizer state beside `dim` weights."""
    per_weight, per_row = _STATE[optimizer.kind.removeprefix("monolith_")]
    return per_weight * dim + per_row


def show(config: "schema.ExperimentConfig") -> None:
    """Prints the tables, their features and their memory."""
    from monolith_tf.config import data_checks

    # A resumed job handles large integers as its checkpoint says.
    kinds = data_checks.id_kinds(config, inspect.job_state(config.model_dir))
    rows = []
    unlimited = False
    for place in placements(config):
        unlimited |= place.max_bytes is None
        rows.append(
            [
                place.table,
                "assigned" if place.slot is None else place.slot,
                kinds.get(place.table),
                place.dim,
                place.features,
                place.row_bytes,
                tables.size(place.row_bytes * 1_000_000),
                "no limit" if place.max_bytes is None else tables.size(place.max_bytes),
                place.device,
            ]
        )
    headers = [
        "table",
        "slot",
        "ids",
        "dim",
        "features",
        "bytes/row",
        "per million rows",
        "at most",
        "device",
    ]
    tables.show("Embedding tables", headers, rows)


def _stored_bytes(table: "embedding.TableSpec") -> int:
    floats = sum(
        part.dim + state_dim(part.optimizer, part.dim) for part in table.row_slices()
    )
    keeps_step = table.expire_after_steps is not None
    stamps = (keeps_step or table.when_full == "evict_oldest") + (
        table.expire_after_days is not None
    )
    return 4 * floats + 8 * stamps


def _max_bytes(table: "embedding.TableSpec") -> int | None:
    limits = []
    if table.max_rows is not None:
        limits.append(table.max_rows)
    if table.max_bytes is not None:
        limits.append(math.ceil(table.max_bytes / _stored_bytes(table)))
    return min(limits) * row_bytes(table) if limits else None
