"""Exports of one job: from a checkpoint, or of the current values during training."""

import pathlib
from collections.abc import Callable
from typing import Any

from monolith_tf import lineage as lineage_lib
from monolith_tf.config import schema
from monolith_tf.data import spec as data_spec
from monolith_tf.embedding.frozen import store as frozen_lib
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.experiment import build
from monolith_tf.export import saved_model
from monolith_tf.features import encode
from monolith_tf.models.frozen_network import FrozenNetwork
from monolith_tf.models.network import Network
from monolith_tf.training import actions as actions_lib
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import dense_variables
from monolith_tf.training import lineage_mark
from monolith_tf.training import run as run_lib


class Exporter:
    """Writes the exports of a job; rows are copied to disk in chunks.

    Args:
      job: The job.
      sample: Returns that many rows of the data, or None if there are none.
    """

    def __init__(
        self, job: build.Job, sample: Callable[[int], dict[str, Any] | None]
    ) -> None:
        self._job = job
        self._config: schema.ExperimentConfig = job.config
        self._sample = sample

    def checkpoint(
        self, checkpoint: checkpoint_lib.Checkpoint, directory: str | pathlib.Path
    ) -> pathlib.Path:
        """Exports a checkpoint, and returns the version's folder."""
        identity = self._job.settle(checkpoint)
        step = self._job.train_step(identity)
        dense_variables.restore(checkpoint, step.state)
        base, *deltas = checkpoint.embedding_layers
        rows = frozen_lib.saved_rows(
            self._job.tables(identity), base, deltas=deltas, seed=self._config.seed
        )
        origin = self._origin(identity.lineage, checkpoint.step)
        return self._export(step.network, rows, origin, directory)

    def present(self, run: run_lib.Run, directory: str | pathlib.Path) -> pathlib.Path:
        """Exports the current values of a run, and returns the version's folder."""
        network = run.step.network
        lineage = lineage_lib.of_state(run.static_state)
        lineage_mark.write(run.model_dir, lineage, run.progress.step)
        origin = self._origin(lineage, run.progress.step)
        return self._export(network, network.store.rows, origin, directory)

    def _origin(self, lineage: lineage_lib.Lineage, step: int) -> saved_model.Origin:
        reading = data_spec.reading_part(self._config.data)
        return saved_model.Origin(lineage=lineage, step=step, reading=reading)

    def _export(
        self,
        network: Network[EmbeddingStore],
        rows: Callable[[], frozen_lib.Rows],
        origin: saved_model.Origin,
        directory: str | pathlib.Path,
    ) -> pathlib.Path:
        spec, store = self._config.export, network.store
        integers = encode.integer_tables(
            network.encoder.features, self._job.feature_columns
        )
        frozen = frozen_lib.FrozenStore(store.tables, store.columns, integers=integers)
        return saved_model.export(
            FrozenNetwork.of(network, frozen),
            self._job.feature_columns,
            directory,
            rows=rows,
            spec=spec,
            sample=self._sample(spec.verify_rows),
            origin=origin,
        )


class Export(actions_lib.EverySteps):
    """Exports the current values during training."""

    def __init__(self, every: int, export: Callable[[run_lib.Run], object]) -> None:
        super().__init__(every)
        self._export = export

    def work(self, run: run_lib.Run) -> None:
        """See base class."""
        self._export(run)
