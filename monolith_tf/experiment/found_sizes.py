"""Writes the widths that search layers found into a config."""

import collections
import dataclasses
from collections.abc import Mapping

from monolith_tf.config import schema
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.models import spec as model_spec

Found = Mapping[str, Mapping[str, Mapping[str, int]]]
"""Layer -> segment -> `kept` and `width`, as in a checkpoint's manifest."""


def with_found_sizes(
    config: schema.ExperimentConfig, found: Found
) -> schema.ExperimentConfig:
    """Returns the config of the model that a search found, without the search.

    Each searched feature's table has as many columns as were kept, and the search block
    only joins its inputs. A feature of which nothing was kept is left out. There is no
    warm start, since its rows have other widths. The new `model_dir` ends in `_found`.

    Args:
      config: The config that was trained; its model is assembled from blocks.
      found: What the layers found, with one segment per feature, in order.

    Raises:
      ValueError: If the tables cannot have the widths that were found.
    """
    sizes: dict[str, int] = {}
    blocks = []
    for block in config.model.blocks:
        if block.name in found:
            kept = _kept(config, block, found[block.name])
            sizes.update(kept)
            inputs = tuple(name for name, size in kept.items() if size)
            if not inputs:
                raise ValueError(
                    f"The search `{block.name}` keeps no column of any feature. Lower "
                    "its `size_penalty`."
                )
            block = model_spec.BlockSpec(name=block.name, inputs=inputs)
        blocks.append(block)
    if unknown := found.keys() - {block.name for block in blocks}:
        raise ValueError(
            "A search must be a block of `model.blocks`. Received: the layers "
            f"{sorted(unknown)}."
        )
    _check_uses(config, sizes)
    dropped = {name for name, size in sizes.items() if not size}
    groups = {
        group: tuple(name for name in members if name not in dropped)
        for group, members in config.model.groups.items()
    }
    return dataclasses.replace(
        config,
        model_dir=f"{config.model_dir}_found",
        features=tuple(f for f in config.features if f.name not in dropped),
        tables=_tables(config, sizes),
        trainer=dataclasses.replace(config.trainer, warm_start=()),
        model=dataclasses.replace(
            config.model,
            blocks=tuple(blocks),
            groups={group: members for group, members in groups.items() if members},
        ),
    )


def _kept(
    config: schema.ExperimentConfig,
    block: model_spec.BlockSpec,
    found: Mapping[str, Mapping[str, int]],
) -> dict[str, int]:
    """Returns the columns that a block keeps of each feature among its inputs."""
    names = [name for entry in block.inputs for name in _members(config, entry)]
    tables = {table.name: table.dim for table in schema.resolved_tables(config)}
    dims = {column.feature: tables[column.table] for column in schema.columns(config)}
    widths = [size["width"] for size in found.values()]
    if [dims.get(name) for name in names] != widths:
        raise ValueError(
            f"The search `{block.name}` must have a segment for each input, and each "
            "must be a feature as wide as its table. Received: segments of widths "
            f"{widths} for the inputs {names}."
        )
    sizes = (size["kept"] for size in found.values())
    return dict(zip(names, sizes, strict=True))


def _check_uses(config: schema.ExperimentConfig, sizes: Mapping[str, int]) -> None:
    """Raises `ValueError` if a searched feature is used outside the search."""
    model = config.model
    entries = [e for block in model.blocks for e in block.inputs]
    entries += [e for head in model.heads for e in head.inputs]
    uses = collections.Counter(n for e in entries for n in _members(config, e))
    for name in sizes:
        if uses[name] > 1:
            raise ValueError(
                f"The feature `{name}` is used outside the search for its width, so "
                "its table cannot change. Use the search's output everywhere."
            )


def _tables(
    config: schema.ExperimentConfig, sizes: Mapping[str, int]
) -> tuple[TableSpec, ...]:
    """Returns `tables` with the found widths, without unused tables."""
    users = schema.features_of_tables(config)
    given = {table.name for table in config.tables}
    tables = []
    for table in schema.resolved_tables(config):
        found = {sizes.get(name) for name in users.get(table.name, ())}
        if len(found) > 1:
            raise ValueError(
                f"The features {list(users[table.name])} share the table "
                f"`{table.name}`, but the search found different widths for them. Give "
                "each its own table."
            )
        size = found.pop() if found else None
        if size:
            tables.append(dataclasses.replace(table, dim=size))
        elif size is None and table.name in given:
            tables.append(table)
    return tuple(tables)


def _members(config: schema.ExperimentConfig, entry: str) -> tuple[str, ...]:
    """Returns the features that an entry of `inputs` names, or the block's name."""
    return schema.members(config, model_spec.parse_reference(entry).name)
