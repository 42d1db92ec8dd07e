"""Builds the reader, encoder, store, model and trainer of a config."""

import contextlib
import dataclasses
import functools
import gc
import pathlib
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_keras
from absl import logging

from monolith_tf import ids as ids_lib
from monolith_tf import imports
from monolith_tf import lineage as lineage_lib
from monolith_tf.config import schema
from monolith_tf.data import formats
from monolith_tf.data import input_fn
from monolith_tf.data import source as source_lib
from monolith_tf.data.batch_source import BatchSource
from monolith_tf.data.spec import Split
from monolith_tf.data.stream.source import StreamSource
from monolith_tf.data.stream.span_feed import SpanFeeder
from monolith_tf.distribute import cluster as cluster_lib
from monolith_tf.embedding import store as store_lib
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.shard.batch_log import Claims
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.experiment import checkpointing
from monolith_tf.experiment import dropped_tables
from monolith_tf.experiment import id_types as id_types_lib
from monolith_tf.experiment import input_order
from monolith_tf.experiment import large_integers
from monolith_tf.experiment import resumed_optimizers
from monolith_tf.experiment import resumed_settings
from monolith_tf.features import columns as columns_lib
from monolith_tf.features import encode
from monolith_tf.features import slots as slots_lib
from monolith_tf.features import statistics as statistics_lib
from monolith_tf.models import layer_names
from monolith_tf.models import network as network_lib
from monolith_tf.models import registry
from monolith_tf.models import spec as models_spec
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import optimizers
from monolith_tf.training import step as step_lib
from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping


@dataclasses.dataclass(frozen=True)
class JobIdentity:
    """What a job decides once, and saves in each of its checkpoints.

    Attributes:
      slots: The slot of each table in the feature ids.
      statistics: Statistics of the training data for transforms.
      lineage: The job's identity, and where it went back to an older step.
      id_types: Table -> type of the values of its ids, including tables that are no
        longer used.
      large_integers: Table of integers -> how it handles those outside of [0, 2^48),
        including tables that are no longer used.
      optimizers: The optimizers of rows; the embedding store saves them.
      inputs: The order of the model's inputs.
    """

    slots: slots_lib.SlotRegistry
    statistics: JsonMapping
    lineage: lineage_lib.Lineage = dataclasses.field(compare=False)
    id_types: Mapping[str, columns_lib.IdType]
    large_integers: Mapping[str, ids_lib.LargeIntegers | None]
    optimizers: resumed_optimizers.Optimizers
    inputs: input_order.InputOrder

    def to_json(self) -> JsonDict:
        """Returns plain data for a checkpoint."""
        return {
            "slots": self.slots.to_json(),
            "statistics": dict(self.statistics),
            "job": self.lineage.job,
            "lineage": self.lineage.to_json(),
            "id_types": dict(self.id_types),
            "large_integers": dict(self.large_integers),
            "inputs": self.inputs.to_json(),
        }


class Job:
    """The parts of one job in this process, made from its config when needed."""

    def __init__(
        self,
        config: schema.ExperimentConfig,
        cluster: cluster_lib.Cluster | None = None,
    ) -> None:
        """Makes the job.

        Args:
          config: The config.
          cluster: Where tables and variables are; None for this process.
        """
        self.config = config
        self._cluster = cluster
        self._made: tuple[JobIdentity, step_lib.TrainStep] | None = None
        _settle_runtime(config)

    @functools.cached_property
    def feature_columns(self) -> dict[str, columns_lib.ColumnType]:
        """The raw columns that features read, which are the inputs of a server."""
        return columns_lib.required_columns(self.config.features, schema=self._schema)

    @functools.cached_property
    def columns(self) -> dict[str, columns_lib.ColumnType]:
        """All raw columns that are read, including labels and weights."""
        return columns_lib.required_columns(
            self.config.features,
            self.config.labels,
            self.config.data.weight,
            self.config.data.pair_columns(),
            schema=self._schema,
            probabilities=models_spec.log_loss_labels(self.config.model),
        )

    @functools.cached_property
    def _schema(self) -> Mapping[str, columns_lib.ColumnType]:
        if self.config.data.input_fn is not None:
            return self._input_fn("train").schema()
        splits: tuple[Split, ...] = ("train", "eval", "test")
        if self.config.data.stream is not None:
            return self._of_stream()
        split = next((s for s in splits if self.config.data.has(s)), splits[0])
        return formats.read_schema(self.config.data, split)

    def _of_stream(self) -> Mapping[str, columns_lib.ColumnType]:
        """Returns the types of the columns in a topic's first messages."""
        found = self.stream({}).schema()
        open_types = [f.name for f in self.config.features if f.dtype == "auto"]
        if not found and open_types:
            raise ValueError(
                "`data.stream`: the topic has no message that can be read, so the "
                f"types of its columns are not known. Set `dtype` of {open_types[0]!r} "
                "and all other features, or start when it has messages."
            )
        return found

    def stream(self, columns: Mapping[str, columns_lib.ColumnType]) -> StreamSource:
        """Returns the topic of the train split, with some columns."""
        name = pathlib.Path(self.config.model_dir).absolute().name
        return StreamSource(self.config.data, columns, f"monolith_tf.{name}")

    def span_feeder(self) -> SpanFeeder | None:
        """Returns what reads the topic in a worker of a cluster; None for files."""
        data = self.config.data
        if data.stream is None:
            return None
        source = self.stream(self.columns)
        return SpanFeeder(source.open_reader, self.columns, data.batch_size)

    def source(self, split: Split) -> BatchSource:
        """Opens a split of the data."""
        if split == "train" and self.config.data.stream is not None:
            return self.stream(self.columns)
        if self.config.data.input_fn is not None:
            return self._input_fn(split)
        return source_lib.open_split(
            self.config.data, split, self.columns, seed=self.config.seed
        )

    def _input_fn(self, split: Split) -> input_fn.InputFn:
        function = imports.load_name(self.config.data.input_fn or "", "data.input_fn")
        probabilities = columns_lib.probability_columns(
            self.config.labels, models_spec.log_loss_labels(self.config.model)
        )
        weight = self.config.data.weight
        return input_fn.InputFn(function, split, probabilities, weight)

    def settle(self, checkpoint: checkpoint_lib.Checkpoint | None) -> JobIdentity:
        """Takes slots and statistics from a checkpoint, or computes them."""
        tables = schema.resolved_tables(self.config)
        wanted = {table.name: table.slot for table in tables}
        id_types = columns_lib.id_types(self.config.features, self.feature_columns)
        large = large_integers.settle(checkpoint, tables, id_types)
        inputs = input_order.of_config(self.config)
        if checkpoint is not None:
            id_types_lib.check(checkpoint, self.config.features, self._schema)
            dropped_tables.check(checkpoint, wanted, self.config.trainer.drop_tables)
            resumed_settings.warn(checkpoint, self.config)
            state = checkpoint.manifest["state"]
            former = slots_lib.SlotRegistry.from_json(state["slots"])
            return JobIdentity(
                slots=slots_lib.assign(wanted, former),
                statistics=state["statistics"],
                lineage=lineage_lib.of_state(state),
                id_types={**state.get("id_types", {}), **id_types},
                large_integers={**state.get("large_integers", {}), **large},
                optimizers=resumed_optimizers.resumed(tables, checkpoint),
                inputs=input_order.after(checkpoint, inputs),
            )
        return JobIdentity(
            slots=slots_lib.assign(wanted, None),
            statistics=statistics_lib.compute(
                self.config.features, self.source("train")
            ),
            lineage=lineage_lib.Lineage().branched(0),
            id_types=id_types,
            large_integers=large,
            optimizers=resumed_optimizers.of_tables(tables),
            inputs=inputs,
        )

    def train_step(
        self, identity: JobIdentity, *, fresh: bool = False
    ) -> step_lib.TrainStep:
        """Returns the step function, with its encoder, store and model.

        There is only one at a time, which callers restore from a checkpoint, so a job
        that trains, evaluates and exports in one process holds its tables once.

        Args:
          identity: The job's slots and statistics.
          fresh: Whether to make a new one with initial values, even if there is one.
        """
        if not fresh and self._made is not None and self._made[0] == identity:
            return self._made[1]
        if self._made is not None:
            # Frees the old one, which is in reference cycles, before the new one
            # needs memory.
            self._made = None
            gc.collect()
        config = input_order.applied(self.config, identity.inputs)
        tf_keras.utils.set_random_seed(config.seed)
        encoder = encode.FeatureEncoder(
            config.features,
            identity.slots.slots,
            statistics=identity.statistics,
            large_integers=identity.large_integers,
        )
        store, claims = self._store(identity), self._claims()
        with self._variable_scope(), layer_names.from_zero():
            network = network_lib.Network(
                encoder,
                store,
                registry.create(config.model),
                labels=config.labels,
                weight=config.data.weight,
            )
            scale = None
            if config.trainer.reduce_on_plateau is not None:
                scale = tf.Variable(1.0, trainable=False, name="rate_scale")
            step = step_lib.TrainStep(
                network,
                optimizers.build(config.trainer.optimizer, scale),
                clip_norm=config.trainer.clip_norm,
                rate_scale=scale,
                seed=config.seed,
                claims=claims,
            )
            step.build(self.element_spec())
        self._made = (identity, step)
        return step

    def _store(self, identity: JobIdentity) -> store_lib.EmbeddingStore:
        config = input_order.applied(self.config, identity.inputs)
        cluster = self._cluster
        on_servers: dict[str, Any] = {}
        if cluster is not None:
            on_servers["mode"] = cluster.spec.mode
            on_servers["placement"] = Placement(
                num_shards=len(cluster.devices),
                devices=cluster.devices,
                token=cluster.remote_token,
            )
        return store_lib.EmbeddingStore(
            self.tables(identity),
            schema.columns(config),
            seed=config.seed,
            track_updates=config.export.spare_rows > 0
            or checkpointing.writes_deltas(config),
            **on_servers,
        )

    def _claims(self) -> Claims | None:
        """Returns what decides which batches update dense variables in a cluster."""
        return None if self._cluster is None else Claims(self._cluster.devices[0])

    def _variable_scope(self) -> contextlib.AbstractContextManager[None]:
        """Returns the scope in which dense variables are made."""
        if self._cluster is None:
            return contextlib.nullcontext()
        return self._cluster.scope()

    def tables(self, identity: JobIdentity) -> list[TableSpec]:
        """Returns the tables' specs with the settings of `identity` filled in."""
        config = input_order.applied(self.config, identity.inputs)
        return [
            dataclasses.replace(
                resumed_optimizers.given_to(
                    input_order.applied_to(table, identity.inputs),
                    identity.optimizers[table.name],
                ),
                slot=identity.slots.slots[table.name],
                large_integers=identity.large_integers.get(table.name),
            )
            for table in schema.resolved_tables(config)
        ]

    def element_spec(self) -> dict[str, tf.TypeSpec]:
        """Returns the type specs of a batch of raw columns."""
        specs: dict[str, tf.TypeSpec] = {}
        for name, kind in self.columns.items():
            dtype = tf.as_dtype(kind.dtype)
            if kind.is_list and kind.length is None:
                specs[name] = tf.RaggedTensorSpec([None, None], dtype, ragged_rank=1)
            elif kind.is_list:
                specs[name] = tf.TensorSpec([None, kind.length], dtype)
            else:
                specs[name] = tf.TensorSpec([None], dtype)
        return specs


def _settle_runtime(config: schema.ExperimentConfig) -> None:
    """Sets TensorFlow's options for the whole process: determinism and threads."""
    trainer = config.trainer
    if trainer.deterministic:
        tf.config.experimental.enable_op_determinism()
    if trainer.threads is not None:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(trainer.threads)
            tf.config.threading.set_inter_op_parallelism_threads(trainer.threads)
        except RuntimeError:
            logging.warning(
                "`trainer.threads` has no effect: TensorFlow has already started in "
                "this process."
            )
