"""Checks that ids are made of values of the same type as in a checkpoint."""

import dataclasses
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

from monolith_tf.features import columns as columns_lib
from monolith_tf.features.spec import FeatureSpec
from monolith_tf.training import checkpoint as checkpoint_lib

_NOUNS = {"int": "integers", "string": "strings"}


def check(
    checkpoint: checkpoint_lib.Checkpoint,
    features: Sequence[FeatureSpec],
    schema: Mapping[str, columns_lib.ColumnType],
) -> None:
    """Compares the types of ids with those of a checkpoint.

    Args:
      checkpoint: The checkpoint. One of version 0.1.0 does not have the types; it gets
        the types that 0.1.0 guessed: strings for CSV cells with lists, and for a column
        in which one cell is not a number.
      features: The features of the config.
      schema: Type of every column of the files.

    Raises:
      CheckpointError: If they differ; the message gives the config line that keeps the
        checkpoint's type.
    """
    now = columns_lib.required_columns(features, schema=schema)
    trained = list(_trained(checkpoint, features, schema))
    for feature, before in trained:
        found = columns_lib.id_type(feature, now)
        if found == before:
            continue
        declared = "" if feature.dtype == "auto" else ", as the config declares it"
        sharing = [o for o, _ in trained if o.table_name == feature.table_name]
        names = ", ".join(f"`{other.name}`" for other in sharing)
        way_out = f"Set `dtype: {before}` for {names}, or train"
        if len({kind for other, kind in trained if other in sharing}) > 1:
            way_out = (
                f"Its rows have two types, since {names} share it, so the same value "
                "has two rows: train"
            )
        raise checkpoint_lib.CheckpointError(
            f"{checkpoint.path}: the ids of feature `{feature.name}`, of table "
            f"`{feature.table_name}`, are {_NOUNS[found]} now{declared}, but the rows "
            f"were trained for {_NOUNS[before]}: no row would be found. "
            f"{way_out} in another `model_dir`."
        )


def check_warm_start(
    checkpoint: checkpoint_lib.Checkpoint, id_types: Mapping[str, columns_lib.IdType]
) -> None:
    """Compares the types of ids with those of a checkpoint of another job.

    Args:
      checkpoint: The checkpoint; one of version 0.1.0 has no types to compare.
      id_types: Table -> type.

    Raises:
      CheckpointError: If a table that both have differs.
    """
    trained = checkpoint.manifest["state"].get("id_types", {})
    for table, found in id_types.items():
        if trained.get(table, found) != found:
            raise checkpoint_lib.CheckpointError(
                f"`trainer.warm_start`: {checkpoint.path} has the table `{table}` for "
                f"ids that are {_NOUNS[trained[table]]}; here they are "
                f"{_NOUNS[found]}, and no row would be found. Set "
                f"`dtype: {trained[table]}` for its features, or rename the table."
            )


def _trained(
    checkpoint: checkpoint_lib.Checkpoint,
    features: Sequence[FeatureSpec],
    schema: Mapping[str, columns_lib.ColumnType],
) -> Iterator[tuple[FeatureSpec, columns_lib.IdType]]:
    """Yields each feature with ids, and the id type of the checkpoint's rows."""
    state = checkpoint.manifest["state"]
    types: Mapping[str, columns_lib.IdType] | None = state.get("id_types")
    as_before = {
        name: dataclasses.replace(
            type_, dtype=type_.before or type_.dtype, elements=None
        )
        for name, type_ in schema.items()
    }
    for feature in features:
        if feature.kind == "dense":
            continue
        if types is None:
            # One by one: in 0.1.0 a table could have ids of two types.
            columns = columns_lib.required_columns([feature], schema=as_before)
            if feature.table_name in state["slots"]["slots"]:
                yield feature, columns_lib.id_type(feature, columns)
        elif feature.table_name in types:
            yield feature, types[feature.table_name]
