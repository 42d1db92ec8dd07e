"""The embedding tables of a SavedModel: ids and bytes, from metadata and variables."""

import math
from typing import Any

import numpy as np

from monolith_tf import ids as ids_lib
from monolith_tf.cli import tables
from monolith_tf.features import id_kinds
from monolith_tf.types import JsonMapping

_KEYS = "table/.ATTRIBUTES/table-keys"
_PLACES = "numbers/.ATTRIBUTES/VARIABLE_VALUE"
_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


def show(described: JsonMapping, reader: object) -> None:
    """Prints the tables of an export.

    The metadata of older exports has no number of ids per table; the ids are counted
    instead. Tables of small integers that share a list of places are counted together.

    Args:
      described: Table -> its entry in the export's metadata.
      reader: A checkpoint reader of the export's variables.
    """
    groups: dict[int, list[str]] = {}
    for name, table in described.items():
        groups.setdefault(table["group"], []).append(name)
    lines: list[list[object]] = []
    counts: dict[tuple[str, ...], int]
    for number, names in sorted(groups.items()):
        if all("rows" in described[name] for name in names):
            counts = {(name,): described[name]["rows"] for name in names}
        else:
            of_group = {name: described[name] for name in names}
            counts = _counted(of_group, reader, f"tables/groups/{number}/index/")
        lines.extend(
            _line([(name, described[name]) for name in together], count)
            for together, count in counts.items()
        )
    if lines:
        headers = ["table", "slot", "made of", "slices", "stored as", "ids"]
        tables.show("Embedding tables", [*headers, "left out", "size"], lines)
    if any(table.get("dropped_rows") for table in described.values()):
        print("Ids are left out if their row is all zeros, as that of unknown ids.\n")


def show_indices(reader: Any) -> None:
    """Prints how many keys each hash table has, for a model that is not an export."""
    dtypes = reader.get_variable_to_dtype_map()
    lines: list[list[object]] = [
        [name.removesuffix(f"/{_KEYS}"), len(np.unique(reader.get_tensor(name)))]
        for name in sorted(dtypes)
        if name.endswith(f"/{_KEYS}") and dtypes[name].name == "int64"
    ]
    if lines:
        tables.show("Hash tables of integers", ["hash table", "keys"], lines)


def _line(together: list[tuple[str, JsonMapping]], count: int) -> list[object]:
    """Returns the line of one table, or of several counted together."""
    names = [name for name, _ in together]
    found = [table for _, table in together]
    made_of = {
        id_kinds.words(table.get("id_type"), table.get("large_integers"))
        for table in found
    }
    slices = found[0]["slices"]
    row_bytes = sum(_BYTES[part["compressor"]] * part["dim"] for part in slices)
    one = len(together) == 1
    return [
        names[0] if one else names,
        found[0]["slot"] if one else [table["slot"] for table in found],
        made_of.pop() if len(made_of) == 1 else None,
        [f"{part['name']}: {part['dim']}" for part in slices],
        [part["compressor"] for part in slices],
        count,
        found[0].get("dropped_rows") if one else None,
        tables.size(count * row_bytes),
    ]


def _counted(
    described: JsonMapping, reader: Any, index: str
) -> dict[tuple[str, ...], int]:
    """Counts the ids in the index of a group's tables."""
    shapes = reader.get_variable_to_shape_map()
    names = tuple(described)
    if index + _PLACES in shapes:
        return {names: int(np.count_nonzero(reader.get_tensor(index + _PLACES)))}
    if not math.prod(shapes.get(index + _KEYS, [0])):
        return {(name,): 0 for name in names}
    keys = np.unique(reader.get_tensor(index + _KEYS))
    if described[names[0]].get("large_integers") == "exact":
        return {names: len(keys)}  # The integers themselves, of one table.
    counts = np.bincount((keys >> ids_lib.HASH_BITS) & (ids_lib.NUM_SLOTS - 1))
    return {
        (name,): int(counts[table["slot"]]) if table["slot"] < len(counts) else 0
        for name, table in described.items()
    }
