"""The types in which a job reads its columns and ids, from a config and its files."""

from collections.abc import Mapping
from typing import Any

from monolith_tf import data
from monolith_tf.config import schema
from monolith_tf.data.spec import Split
from monolith_tf.features import columns
from monolith_tf.features import id_kinds as kinds


def column_types(
    config: schema.ExperimentConfig,
) -> dict[str, columns.ColumnType] | None:
    """Returns the raw columns that features read, with the types that the job uses.

    Returns:
      Column -> type, or None if only the job itself can find them: the files do not
      exist, or a function or a topic provides the data.
    """
    splits: tuple[Split, ...] = ("train", "eval", "test")
    split = next((s for s in splits if config.data.has(s)), "train")
    if config.data.input_fn is not None or config.data.stream is not None:
        return None
    try:
        found = data.read_schema(config.data, split)
        return columns.required_columns(config.features, schema=found)
    except (ImportError, OSError, ValueError):
        return None


def id_kinds(
    config: schema.ExperimentConfig,
    state: Mapping[str, Any] | None = None,
) -> dict[str, str | None]:
    """Returns table -> description of its ids; empty if `column_types` is None.

    Args:
      config: The config.
      state: The state in the checkpoint from which the job resumes, if any. Its setting
        for large integers takes precedence.
    """
    found = column_types(config)
    if found is None:
        return {}
    large = {}
    for table in schema.resolved_tables(config):
        kept = None if state is None else kinds.kept(state, table.name)
        large[table.name] = kept or table.large_integers
    return {
        table: kinds.words(id_type, large[table])
        for table, id_type in columns.id_types(config.features, found).items()
    }
