"""The Python interface of a job: train, evaluate, predict, export."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable
from collections.abc import Iterator
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
from absl import logging

from monolith_tf import atomic
from monolith_tf import config as config_lib
from monolith_tf import paths
from monolith_tf.config import schema
from monolith_tf.data.batch_source import BatchSource
from monolith_tf.data.spec import Split
from monolith_tf.data.stream.source import StreamSource
from monolith_tf.distribute import cluster as cluster_lib
from monolith_tf.experiment import build
from monolith_tf.experiment import checkpointing
from monolith_tf.experiment import diagnosis
from monolith_tf.experiment import exports
from monolith_tf.experiment import fitting_rows
from monolith_tf.experiment import input_order
from monolith_tf.experiment import job_checkpoints
from monolith_tf.experiment import large_integers
from monolith_tf.experiment import resumed_settings
from monolith_tf.experiment import run_actions
from monolith_tf.experiment import run_start
from monolith_tf.experiment import scoring
from monolith_tf.experiment import sources as sources_lib
from monolith_tf.experiment import stepping
from monolith_tf.experiment import trained_rows
from monolith_tf.experiment import warm_start
from monolith_tf.experiment import watcher as watcher_lib
from monolith_tf.models.network import Network
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import checkpoint_dir
from monolith_tf.training import dense_variables
from monolith_tf.training import evaluation
from monolith_tf.training import job_lock
from monolith_tf.training import lineage_mark
from monolith_tf.training import loop
from monolith_tf.training import recorder as recorder_lib
from monolith_tf.training import run as run_lib
from monolith_tf.training import step as step_lib

if TYPE_CHECKING:
    from monolith_tf.experiment import live_publishing


class Estimator:
    """One job: everything that `monolith-tf` does, from Python."""

    def __init__(
        self,
        config: schema.ExperimentConfig | str | pathlib.Path,
        *overrides: str,
        watcher: watcher_lib.Watcher | None = None,
        cluster: cluster_lib.Cluster | None = None,
        record_dir: str | pathlib.Path | None = None,
    ) -> None:
        """Makes the job.

        Args:
          config: A config, or the path of its file.
          *overrides: `key.path=value`, as on the command line; only with a path.
          watcher: Receives events during training.
          cluster: Where `train` runs; None for this process.
          record_dir: Where metrics and summaries go; None takes `model_dir`.
        """
        self._cluster = cluster
        self.config = (
            config
            if isinstance(config, schema.ExperimentConfig)
            else config_lib.load_config(config, overrides)
        )
        trainer = self.config.trainer
        self._watcher = watcher or watcher_lib.Watcher()
        self._model_dir = pathlib.Path(self.config.model_dir)
        self._checkpoints = job_checkpoints.of(self.config)
        self._recorder = recorder_lib.Recorder(
            pathlib.Path(record_dir or self._model_dir), summaries=trainer.summaries
        )
        self._job = build.Job(self.config, cluster)
        self._sources = sources_lib.Sources(self._job, cluster)

    def train(self) -> dict[str, float]:
        """Trains, from the newest checkpoint in `model_dir` if there is one.

        Returns:
          The last evaluation's metrics; empty if there was none.

        Raises:
          CheckpointError: If the checkpoint does not fit the config.
          InterruptedRun: After SIGINT or SIGTERM, with a checkpoint written.
          JobRunsError: If another process trains in `model_dir`.
          NonFiniteLossError: If a loss is NaN or infinite.
          OutOfMemoryError: If a step runs out of memory.
        """
        with job_lock.held(self._model_dir):
            return self._train()

    def _train(self) -> dict[str, float]:
        config, trainer = self.config, self.config.trainer
        identity, step, checkpoint = (
            self._checkpoints.use_latest(self._resumed) or self._started()
        )
        network = step.network
        source = self._sources.open("train")
        per_epoch = source.batches_per_epoch()
        start = (
            run_start.new(source, config)
            if checkpoint is None
            else run_start.resumed(checkpoint, source, config, identity)
        )
        progress = start.progress
        self._sources.trained_rows = trained_rows.count(
            start.trained, source.marks, config
        )
        self._recorder.log.cut_back(progress.step if checkpoint else -1)
        yaml = config_lib.dump_config(input_order.applied(config, identity.inputs))
        atomic.write_text(self._model_dir / "config.yaml", yaml)
        evaluator = self._evaluator(network)
        windows = stepping.event_time(source, evaluator, trainer)
        run = run_lib.Run(
            model_dir=self._model_dir,
            step=step,
            progress=progress,
            window=start.window,
            total_steps=run_start.total_steps(trainer, per_epoch, progress),
            steps_per_epoch=per_epoch,
            recorder=self._recorder,
            checkpoints=self._checkpoints,
            evaluate=self._scorer(evaluator),
            config_yaml=yaml,
            static_state={
                **identity.to_json(),
                "data": start.data,
                "trained": start.trained,
                "settings": resumed_settings.of(config),
            },
            saved=checkpoint,
            evaluated_on=self._sources.evaluated_on,
            writes_deltas=checkpointing.writes_deltas(config),
            # The step of such a checkpoint depends on how long it takes.
            copies_live=network.store.tracks_updates and not trainer.deterministic,
        )
        if run.writes_deltas:
            self._checkpoints.start_deltas(checkpoint, network.store)
        if run.total_steps is not None and run.total_steps <= progress.step:
            logging.warning(
                "There is nothing to train: the checkpoint is at step %d, where "
                "`trainer.epochs` or `trainer.max_steps` ends training.",
                progress.step,
            )
        self._watcher.job(network.store.describe(), run)
        with (
            self._publishing(run, source) as publish,
            contextlib.closing(
                stepping.stepper(
                    run,
                    source,
                    evaluator,
                    self._sources,
                    self._cluster,
                    trainer,
                    windows,
                )
            ) as stepper,
            large_integers.explained(run, source),
            sources_lib.plain_errors(source),
        ):
            loop.train(
                run,
                stepper,
                run_actions.between_steps(
                    config,
                    run,
                    self._watcher,
                    export=self._export_present,
                    counts=self._sources.counts,
                    stream=source if isinstance(source, StreamSource) else None,
                    windows=windows,
                    has_evaluator=self._cluster is not None
                    and self._cluster.spec.evaluator,
                    publishing=publish,
                ),
                steps_per_loop=trainer.steps_per_loop,
                explain=lambda batch: diagnosis.explain(
                    network, source, *run.place(batch)
                ),
                on_steps=functools.partial(self._on_steps, publish),
            )
        self._watcher.end(run)
        return progress.metrics

    def _started(self) -> tuple[build.JobIdentity, step_lib.TrainStep, None]:
        """Makes the step function of a new job."""
        identity = self._job.settle(None)
        if self.config.trainer.warm_start:
            return *warm_start.started(self._job, identity), None
        return identity, self._job.train_step(identity, fresh=True), None

    def _resumed(
        self, checkpoint: checkpoint_lib.Checkpoint
    ) -> tuple[build.JobIdentity, step_lib.TrainStep, checkpoint_lib.Checkpoint]:
        """Makes the step function of a job that resumes from a checkpoint."""
        identity = self._job.settle(checkpoint)
        lineage = lineage_mark.resumed(self._model_dir, checkpoint)
        identity = dataclasses.replace(identity, lineage=lineage)
        step = self._job.train_step(identity, fresh=True)
        self._restore(checkpoint, step)
        # A copy does not hold the files: old checkpoints are removed during the job.
        return identity, step, checkpoint.without_lock()

    def _restore(
        self, checkpoint: checkpoint_lib.Checkpoint, step: step_lib.TrainStep
    ) -> None:
        fitting_rows.check(checkpoint, step.network.store.tables, self.config)
        dense_variables.restore(checkpoint, step.state)
        base, *deltas = checkpoint.embedding_layers
        step.network.store.restore(base, deltas=deltas)

    def evaluate(
        self, split: Split = "test", checkpoint: str | None = None
    ) -> dict[str, float]:
        """Scores a split, every example once, and adds a line to `metrics.jsonl`.

        Args:
          split: Which part of the data.
          checkpoint: A checkpoint's folder; None takes the best one, or the newest if
            no best one was kept.

        Returns:
          `<head>/<metric>` -> value, and `loss`.
        """
        found, network = job_checkpoints.use(
            self._checkpoints, checkpoint, self._restored, prefer_best=True
        )
        if split == "eval" and self.config.data.validation_fraction:
            files = self._job.source("train").marks
            trained = trained_rows.of_checkpoint(found, files)
            self._sources.trained_rows = trained_rows.count(trained, files, self.config)
        metrics = self._scorer(self._evaluator(network))(split)
        self._recorder.record(split, found.step, metrics)
        counts = self._sources.counts()
        if any(counts.values()):
            self._recorder.record("data", found.step, counts)
        return metrics

    def predict(
        self, split: Split = "test", checkpoint: str | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields predictions and extra outputs by name, batch by batch."""
        _, network = job_checkpoints.use(
            self._checkpoints, checkpoint, self._restored, prefer_best=True
        )
        source = self._job.source(split)
        with sources_lib.plain_errors(source):
            yield from evaluation.predict(network, source.dataset())

    def export_saved_model(
        self, directory: str | pathlib.Path | None = None, checkpoint: str | None = None
    ) -> pathlib.Path:
        """Exports a checkpoint for serving.

        Args:
          directory: The folder of versions; None takes `export.directory`, or
            `<model_dir>/export`.
          checkpoint: A checkpoint's folder; None takes the one that
            `export.checkpoint` selects.

        Returns:
          The new version's folder.

        Raises:
          ValueError: If `directory` is a URL.
        """
        if directory is not None:
            paths.check("directory", directory)
        exporter, where = self._exporter, directory or self._export_dir
        return job_checkpoints.use(
            self._checkpoints,
            checkpoint,
            lambda found: exporter.checkpoint(found, where),
            prefer_best=self.config.export.checkpoint != "newest",
        )

    def evaluated_on(self) -> dict[str, Any]:
        """Returns what the last evaluation of the eval split was of."""
        return self._sources.evaluated_on()

    @property
    def _exporter(self) -> exports.Exporter:
        return exports.Exporter(self._job, self._sources.sample)

    def _export_present(self, run: run_lib.Run) -> None:
        if self._cluster is None:
            self._exporter.present(run, self._export_dir)
            return
        # A graph made by this job would name the parameter servers. So another job, in
        # this process alone, exports a checkpoint.
        local = exports.Exporter(build.Job(self.config), self._sources.sample)
        run.want_checkpoint(lambda saved: local.checkpoint(saved, self._export_dir))

    @contextlib.contextmanager
    def _publishing(
        self, run: run_lib.Run, source: BatchSource
    ) -> Iterator["live_publishing.LivePublishing | None"]:
        """Publishes during a run, and its last values at its end."""
        if self.config.publish is None:
            yield None
            return
        # Needs gRPC, which other jobs need not have.
        try:
            from monolith_tf.experiment import golden_sample
            from monolith_tf.experiment import live_publishing
        except ImportError as error:
            raise ImportError(
                "`publish` needs the packages of the extra `serving`: "
                "`pip install 'monolith_tf[serving]'`."
            ) from error
        spec = self.config.publish
        golden = None
        if spec.guard is not None:
            golden = golden_sample.GoldenSample(spec.guard, self._job, run, source)
        with contextlib.closing(
            live_publishing.LivePublishing(spec, run, golden)
        ) as publish:
            try:
                yield publish
            except loop.InterruptedRun:
                publish.finish()
                raise
            publish.finish()

    def _on_steps(
        self, publish: "live_publishing.LivePublishing | None", run: run_lib.Run
    ) -> None:
        self._watcher.steps(run)
        if publish is not None:
            publish.tick()
        if self._cluster is not None:
            self._cluster.report(
                step=run.progress.step,
                total_steps=run.total_steps,
                examples_per_sec=round(
                    run.window.examples / max(run.window.seconds, 1e-9), 1
                ),
            )
            if self._cluster.change and run.progress.step != run.total_steps:
                run.stop(f"{run_lib.INTERRUPTED}: {self._cluster.change}")
                self._cluster.regroup()

    def _restored(
        self, checkpoint: checkpoint_lib.Checkpoint
    ) -> tuple[checkpoint_lib.Checkpoint, Network]:
        """Returns a checkpoint, and the network with its values."""
        step = self._job.train_step(self._job.settle(checkpoint))
        self._restore(checkpoint, step)
        return checkpoint, step.network

    @property
    def _export_dir(self) -> pathlib.Path:
        return pathlib.Path(self.config.export.directory or self._model_dir / "export")

    def _evaluator(self, network: Network) -> evaluation.Evaluator:
        return evaluation.Evaluator(
            network, self.config.metrics, group_by=self.config.group_by
        )

    def _scorer(
        self, evaluator: evaluation.Evaluator
    ) -> Callable[[Split], dict[str, float]]:
        return scoring.scorer(
            evaluator, self._sources, self._cluster, self.config.trainer.steps_per_loop
        )

    @property
    def checkpoints(self) -> checkpoint_dir.CheckpointDir:
        """The job's checkpoints."""
        return self._checkpoints

    def metric(self, name: str) -> str:
        """Returns a metric's full name; adds the head to a name without one."""
        return run_actions.metric(self.config, name)
