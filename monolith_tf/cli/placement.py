"""Estimates the memory of embedding tables from the config alone."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from monolith_tf.cli import inspect
from monolith_tf.cli import tables
from monolith_tf.embedding import row_size

if TYPE_CHECKING:
    from monolith_tf.config import schema


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
    specs = schema.resolved_tables(config)
    for table in specs:
        layout = row_size.layout_key(table)
        bytes_per_id = row_size.bytes_per_id(
            [other for other in specs if row_size.layout_key(other) == layout],
            tracks_updates=config.export.spare_rows > 0,
        )
        max_rows = row_size.max_rows(table)
        yield TablePlacement(
            table=table.name,
            slot=table.slot,
            dim=table.row_dim,
            features=used.get(table.name, ()),
            row_bytes=bytes_per_id,
            max_bytes=None if max_rows is None else max_rows * bytes_per_id,
            device=device,
        )


def show(config: "schema.ExperimentConfig") -> None:
    """Prints the tables, their features and their memory."""
    from monolith_tf.config import column_types

    # A resumed job handles large integers as its checkpoint says.
    kinds = column_types.id_kinds(config, inspect.job_state(config.model_dir))
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
