"""Row optimizers of a resumed job.

Values that its config leaves out come from its checkpoint, so a default that changed
between two versions of monolith_tf does not change a job.
"""

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TypeAlias

import yaml
from absl import logging

from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding.optimizer_spec import RowOptimizerSpec
from monolith_tf.embedding.spec import DEFAULT_SLICE
from monolith_tf.embedding.spec import SliceSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.training.checkpoint import Checkpoint
from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping

Optimizers: TypeAlias = Mapping[str, JsonMapping]
"""Table -> slice -> its optimizer, as in JSON."""


def of_tables(tables: Sequence[TableSpec]) -> Optimizers:
    """Returns the optimizers that tables name."""
    return {
        table.name: {
            part.name: optimizer_spec.to_plain(part.optimizer)
            for part in table.row_slices()
        }
        for table in tables
    }


def resumed(tables: Sequence[TableSpec], checkpoint: Checkpoint) -> Optimizers:
    """Returns the optimizers with which tables resume from a checkpoint.

    Values that the config sets are used; the others come from the checkpoint, as does
    the form of an optimizer that 0.1.0 called by Keras' name. Differences from the
    config's defaults are logged.
    """
    before = saved(checkpoint)
    return {
        table.name: {
            part.name: _resumed(table.name, part, before.get(table.name, {}))
            for part in table.row_slices()
        }
        for table in tables
    }


def given_to(table: TableSpec, optimizers: JsonMapping) -> TableSpec:
    """Returns a table with other optimizers of its slices.

    Args:
      table: The table.
      optimizers: Slice -> optimizer.
    """
    specs = {
        name: optimizer_spec.row_optimizer(**plain)
        for name, plain in optimizers.items()
    }
    if not table.slices:
        return dataclasses.replace(table, optimizer=specs[DEFAULT_SLICE])
    slices = [
        dataclasses.replace(part, optimizer=specs[part.name]) for part in table.slices
    ]
    return dataclasses.replace(table, slices=tuple(slices))


def _resumed(table: str, part: SliceSpec, saved: JsonMapping) -> JsonDict:
    spec = part.optimizer
    here = optimizer_spec.to_plain(spec)
    before = saved.get(part.name)
    if before is None or not _is_same(spec, before):
        return here
    given = {name: here[name] for name in spec.given - {"name"}}
    merged = {**before, **given, "name": before["name"]}
    merged.pop("was", None)
    changed = {key: value for key, value in merged.items() if here.get(key) != value}
    if changed:
        shown = ", ".join(f"{key}: {value}" for key, value in changed.items())
        logging.info(
            "Table `%s`, slice `%s`: the optimizer continues with the checkpoint's "
            "values, {%s}, and not with the defaults of the config's `%s`. Set values "
            "in the config to change them.",
            table,
            part.name,
            shown,
            spec.name,
        )
    return merged


def _is_same(spec: RowOptimizerSpec, before: JsonMapping) -> bool:
    """Returns whether a config names a checkpoint's optimizer, or its old name."""
    return spec.name in (before["name"], before.get("was"))


def saved(checkpoint: Checkpoint) -> dict[str, JsonDict]:
    """Returns table -> slice -> its optimizer in a checkpoint.

    `was` of such an optimizer is its name in 0.1.0.
    """
    entries = checkpoint.manifest["embedding"]["tables"]
    if all("optimizers" in entry for entry in entries):
        return {entry["name"]: entry["optimizers"] for entry in entries}
    # In 0.1.0 only the checkpoint's config has them, with all values.
    config = yaml.safe_load(checkpoint.config_path.read_text("utf-8")) or {}
    named = {table["name"]: table for table in config.get("tables", ())}
    default = config.get("default_table", {})
    found = {}
    for entry in entries:
        table = named.get(entry["name"], default)
        parts = table.get("slices") or [{**table, "name": DEFAULT_SLICE}]
        found[entry["name"]] = {
            part["name"]: _of_release_0_1(part.get("optimizer", _DEFAULT_OF_0_1))
            for part in parts
        }
    return found


_DEFAULT_OF_0_1 = {
    "name": "adagrad",
    "learning_rate": 0.05,
    "weight_decay": 0.0,
    "initial_accumulator_value": 0.1,
    "epsilon": 0.0,
}


def _of_release_0_1(plain: JsonMapping) -> JsonDict:
    name = plain["name"]
    return {**plain, "name": optimizer_spec.from_release_0_1(name), "was": name}
