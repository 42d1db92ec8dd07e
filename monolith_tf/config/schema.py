"""The config of a job: all its specs in one tree."""

import dataclasses
from collections.abc import Mapping

from monolith_tf import paths
from monolith_tf.data.spec import DataSpec
from monolith_tf.distribute.spec import ClusterSpec
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.export.publish_spec import PublishSpec
from monolith_tf.export.spec import ExportSpec
from monolith_tf.features.spec import FeatureSpec
from monolith_tf.features.spec import LabelSpec
from monolith_tf.models.spec import ModelSpec
from monolith_tf.training.spec import TrainerSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """All settings of one job.

    Attributes:
      model_dir: Folder for checkpoints, metrics, summaries and the resolved config.
      seed: Seed of initial values, shuffling and dropout, not negative.
      data: Files, their format, and how rows become batches.
      features: The inputs of the model, in this order; a resumed job keeps the order of
        its checkpoint.
      labels: What is predicted; may be empty for a model that needs none.
      tables: The embedding tables that features name.
      default_table: Template for the tables of features that name none; it needs no
        `name` and cannot have a `slot`. Without it, such a feature is an error unless
        `tables` has a table of its name.
      model: The model.
      trainer: Steps, intervals, optimizer, early stopping.
      metrics: Names of `monolith_tf.metrics`, computed for each head in evaluations;
        your own class as `module:Name`.
      group_by: Feature whose ids group the rows of metrics such as `gauc`.
      cluster: Parameter servers and workers; None runs in one process.
      export: Where and when SavedModels are written.
      publish: To which model servers the job sends what it learns while it trains; None
        sends nothing.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    model_dir: str
    seed: int = 0
    data: DataSpec
    features: tuple[FeatureSpec, ...]
    labels: tuple[LabelSpec, ...] = ()
    tables: tuple[TableSpec, ...] = ()
    default_table: TableSpec | None = None
    model: ModelSpec
    trainer: TrainerSpec = TrainerSpec()  # noqa: RUF009 (frozen)
    metrics: tuple[str, ...] = ("auc", "log_loss", "calibration")
    group_by: str | None = None
    cluster: ClusterSpec | None = None
    export: ExportSpec = ExportSpec()  # noqa: RUF009 (frozen)
    publish: PublishSpec | None = None

    def __post_init__(self) -> None:
        if not self.model_dir:
            raise ValueError("`model_dir` must not be empty. Received: model_dir=''.")
        paths.check("model_dir", self.model_dir)
        if not 0 <= self.seed < 2**63:
            raise ValueError(
                f"`seed` must be in [0, 2^63). Received: seed={self.seed}."
            )
        if not self.features:
            raise ValueError("`features` must have at least one entry. Received: none.")


def resolved_tables(config: ExperimentConfig) -> tuple[TableSpec, ...]:
    """Returns all embedding tables of a job.

    These are `tables`, and a copy of `default_table` under the feature's name for each
    feature with ids that names no table.
    """
    tables = {table.name: table for table in config.tables}
    if config.default_table is not None:
        for feature in config.features:
            if has_own_table(feature) and feature.name not in tables:
                tables[feature.name] = dataclasses.replace(
                    config.default_table, name=feature.name, slot=None
                )
    return tuple(tables.values())


def table_key(config: ExperimentConfig, table: str) -> str:
    """Returns the key that describes a table: `tables[0]`, or `default_table`."""
    names = [spec.name for spec in config.tables]
    return f"tables[{names.index(table)}]" if table in names else "default_table"


def columns(config: ExperimentConfig) -> tuple[ColumnSpec, ...]:
    """Returns how each feature with ids uses its table, in config order."""
    return tuple(
        ColumnSpec(
            feature=feature.name,
            table=feature.table_name,
            combiner=feature.combiner or ("sum" if feature.kind == "id" else "mean"),
            max_length=feature.max_length or None,
        )
        for feature in config.features
        if feature.kind != "dense"
    )


def has_own_table(feature: FeatureSpec) -> bool:
    """Returns whether a feature has ids and names no table for them."""
    return feature.kind != "dense" and feature.table is None


def features_of_tables(config: ExperimentConfig) -> Mapping[str, tuple[str, ...]]:
    """Returns table -> the features that use it."""
    used: dict[str, tuple[str, ...]] = {}
    for column in columns(config):
        used[column.table] = (*used.get(column.table, ()), column.feature)
    return used


def members(config: ExperimentConfig, name: str) -> tuple[str, ...]:
    """Returns the features of a group; the name itself if it is not a group."""
    groups = {
        "all": tuple(f.name for f in config.features),
        "embeddings": tuple(f.name for f in config.features if f.kind != "dense"),
        "dense": tuple(f.name for f in config.features if f.kind == "dense"),
        **config.model.groups,
    }
    return groups.get(name, (name,))
