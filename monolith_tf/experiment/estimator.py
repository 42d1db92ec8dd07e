"""The Python interface of a job: train, evaluate, predict, export."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import TypeVar

import numpy as np
import tensorflow as tf
from absl import logging

from monolith_tf import config as config_lib
from monolith_tf import paths
from monolith_tf.config import schema
from monolith_tf.data import feed as feed_lib
from monolith_tf.data import rows as rows_lib
from monolith_tf.data.batch_source import BatchSource
from monolith_tf.data.spec import Split
from monolith_tf.distribute import cluster as cluster_lib
from monolith_tf.experiment import build
from monolith_tf.experiment import diagnosis
from monolith_tf.experiment import dropped_tables
from monolith_tf.experiment import evaluated_on
from monolith_tf.experiment import exports
from monolith_tf.experiment import fitting_rows
from monolith_tf.experiment import input_order
from monolith_tf.experiment import large_integers
from monolith_tf.experiment import resumed_position
from monolith_tf.experiment import resumed_settings
from monolith_tf.experiment import run_actions
from monolith_tf.experiment import trained_rows
from monolith_tf.experiment import warm_start
from monolith_tf.experiment import watcher as watcher_lib
from monolith_tf.models.network import Network
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import cluster_evaluation
from monolith_tf.training import cluster_stepper
from monolith_tf.training import evaluation
from monolith_tf.training import job_lock
from monolith_tf.training import lineage_mark
from monolith_tf.training import loop
from monolith_tf.training import progressive
from monolith_tf.training import recorder as recorder_lib
from monolith_tf.training import run as run_lib
from monolith_tf.training import step as step_lib
from monolith_tf.training import stepper as stepper_lib

_Result = TypeVar("_Result")


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
        self._checkpoints = checkpoints_of(self.config)
        self._recorder = recorder_lib.Recorder(
            pathlib.Path(record_dir or self._model_dir), summaries=trainer.summaries
        )
        self._job = build.Job(self.config, cluster)
        self._sources: dict[str, BatchSource] = {}  # Split -> the last one read.
        self._trained_rows = 0  # Of the eval split, before they were held out.

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
        source = self._source("train")
        progress = run_lib.Progress(batch_size=config.data.batch_size)
        window = run_lib.Window()
        per_epoch = source.batches_per_epoch()
        data = source.identity()
        trained = trained_rows.of(source.marks, config)
        if checkpoint is not None:
            before = trained_rows.of_checkpoint(checkpoint, source.marks)
            trained = trained_rows.joined(before, trained)
            state = checkpoint.manifest["state"]
            progress = run_lib.Progress(**state["progress"])
            _count_examples(progress, state["progress"])
            window = run_lib.Window(**state["window"])
            logging.info("Resuming from %s.", checkpoint.path)
            dropped_tables.log(checkpoint, identity.optimizers)
            resumed_settings.log(checkpoint, config)
            resumed_position.resume(
                progress,
                state.get("data"),
                data,
                config.data.batch_size,
                taken_for=source.identity(progress.batch_size),
            )
        self._trained_rows = trained_rows.count(trained, source.marks, config)
        self._recorder.log.cut_back(progress.step if checkpoint else -1)
        yaml = config_lib.dump_config(input_order.applied(config, identity.inputs))
        checkpoint_lib.write_text(self._model_dir / "config.yaml", yaml)
        evaluator = self._evaluator(network)
        run = run_lib.Run(
            model_dir=self._model_dir,
            step=step,
            progress=progress,
            window=window,
            total_steps=_total_steps(trainer, per_epoch, progress),
            steps_per_epoch=per_epoch,
            recorder=self._recorder,
            checkpoints=self._checkpoints,
            evaluate=self._scorer(evaluator),
            config_yaml=yaml,
            static_state={
                **identity.to_json(),
                "data": data,
                "trained": trained,
                "settings": resumed_settings.of(config),
            },
            saved=checkpoint,
            evaluated_on=self.evaluated_on,
        )
        if run.total_steps is not None and run.total_steps <= progress.step:
            logging.warning(
                "There is nothing to train: the checkpoint is at step %d, where "
                "`trainer.epochs` or `trainer.max_steps` ends training.",
                progress.step,
            )
        self._watcher.job(network.store.describe(), run)
        with _large_integers_explained(run, source), _plain_errors(source):
            loop.train(
                run,
                self._stepper(run, source, evaluator),
                run_actions.between_steps(
                    config,
                    run,
                    self._watcher,
                    export=self._export_present,
                    counts=self._counts,
                    has_evaluator=self._cluster is not None
                    and self._cluster.spec.evaluator,
                ),
                steps_per_loop=trainer.steps_per_loop,
                explain=lambda batch: diagnosis.explain(
                    network, source, *run.place(batch)
                ),
                on_steps=self._on_steps,
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
        return identity, step, dataclasses.replace(checkpoint)

    def _restore(
        self, checkpoint: checkpoint_lib.Checkpoint, step: step_lib.TrainStep
    ) -> None:
        fitting_rows.check(checkpoint, step.network.store.tables, self.config)
        checkpoint_lib.restore_dense(checkpoint, step.state)
        step.network.store.restore(checkpoint.embedding_dir)

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
        found, network = self._use(checkpoint, self._restored)
        if split == "eval" and self.config.data.validation_fraction:
            files = self._job.source("train").marks
            trained = trained_rows.of_checkpoint(found, files)
            self._trained_rows = trained_rows.count(trained, files, self.config)
        metrics = self._scorer(self._evaluator(network))(split)
        self._recorder.record(split, found.step, metrics)
        if any(self._counts().values()):
            self._recorder.record("data", found.step, self._counts())
        return metrics

    def predict(
        self, split: Split = "test", checkpoint: str | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields predictions and extra outputs by name, batch by batch."""
        _, network = self._use(checkpoint, self._restored)
        source = self._job.source(split)
        with _plain_errors(source):
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
        return self._use(
            checkpoint,
            lambda found: exporter.checkpoint(found, where),
            prefer_best=self.config.export.checkpoint != "newest",
        )

    def evaluated_on(self) -> dict[str, Any]:
        """Returns what the last evaluation of the eval split was of."""
        source = self._sources.get("eval")
        marks = () if source is None else source.marks
        return evaluated_on.of(self.config, marks)

    @property
    def _exporter(self) -> exports.Exporter:
        return exports.Exporter(self._job, self._sample)

    def _export_present(self, run: run_lib.Run) -> None:
        if self._cluster is None:
            self._exporter.present(run, self._export_dir)
            return
        # A graph made by this job would name the parameter servers. So another job, in
        # this process alone, exports a checkpoint.
        local = exports.Exporter(build.Job(self.config), self._sample)
        run.want_checkpoint(lambda saved: local.checkpoint(saved, self._export_dir))

    def _on_steps(self, run: run_lib.Run) -> None:
        self._watcher.steps(run)
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

    def _stepper(
        self, run: run_lib.Run, source: BatchSource, evaluator: evaluation.Evaluator
    ) -> stepper_lib.Stepper:
        """Returns the stepper, which starts at the run's position."""
        trainer, per_epoch = self.config.trainer, run.steps_per_epoch
        if self._cluster is not None:
            return cluster_stepper.ClusterStepper(
                run.step, self._cluster, self._feed, run, trainer.steps_per_loop
            )
        if per_epoch is None:
            dataset = source.dataset(0, run.progress.batch, num_epochs=trainer.epochs)
        else:
            epoch, batch, cut = run.place(run.progress.batch)
            dataset = source.dataset(
                epoch, batch, num_epochs=None, string_codes=True, cut=cut
            )
        if trainer.mode == "progressive":
            stepper = progressive.ProgressiveStepper(run.step, dataset, evaluator)
            run.evaluate = stepper.score
            return stepper
        return stepper_lib.LocalStepper(run.step, dataset)

    def _source(self, split: Split) -> BatchSource:
        source = self._sources[split] = self._job.source(split)
        if self._cluster is not None:
            self._feed.files[split] = source.files_digest()
        return source

    def _counts(self) -> dict[str, int]:
        """Returns the readers' counts, as `<split>/<name>`."""
        found = {
            f"{split}/{name}": value
            for split, source in self._sources.items()
            for name, value in source.counts().items()
        }
        if self._trained_rows:
            found["eval/trained_rows"] = self._trained_rows
        if self._cluster is None:
            return found
        for split, heard in self._feed.filled.items():  # Rows that workers read.
            filled = {**self._sources[split].filled, **heard}
            counts = rows_lib.count_filled(filled, self._job.columns)
            found |= {f"{split}/{name}": value for name, value in counts.items()}
        return found

    @functools.cached_property
    def _feed(self) -> feed_lib.Feed:
        """The description of the cluster workers' feeders."""
        cluster = self._cluster
        tokens = ("", "") if cluster is None else cluster.feed_tokens
        return feed_lib.Feed(tokens, self._job.columns, self.config.data.batch_size)

    def _use(
        self,
        path: str | None,
        use: Callable[[checkpoint_lib.Checkpoint], _Result],
        *,
        prefer_best: bool = True,
    ) -> _Result:
        """Calls a function with the checkpoint of a path, or the best or newest one."""
        if path is not None:
            return use(checkpoint_lib.open_checkpoint(path))

        def use_and_say(found: checkpoint_lib.Checkpoint) -> _Result:
            self._say_which(found, prefer_best=prefer_best)
            return use(found)

        used = self._checkpoints.use_latest(use_and_say, prefer_best=prefer_best)
        if used is None:
            raise checkpoint_lib.CheckpointError(
                f"There is no checkpoint in {self._checkpoints.path}. Train first: "
                "`monolith-tf train CONFIG`."
            )
        return used

    def _say_which(
        self, checkpoint: checkpoint_lib.Checkpoint, *, prefer_best: bool
    ) -> None:
        """Says which checkpoint is used where nobody has named one."""
        mark = self._checkpoints.best_mark() if prefer_best else {}
        newest = self._checkpoints.names()[-1]
        what = "the newest one"
        if mark.get("checkpoint") == checkpoint.path.name:
            what = f"the best by `{mark['metric']}`, {mark['value']:.5f}"
            if newest != checkpoint.path.name:
                what += f"; the newest one is {newest}"
        elif newest != checkpoint.path.name:
            what = f"since {newest} cannot be used"
        logging.info("Using step %d: %s, %s.", checkpoint.step, checkpoint.path, what)

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
        """Returns a function that scores a split, here or on the cluster's workers."""
        if self._cluster is None:
            return functools.partial(self._score, evaluator)
        workers = cluster_evaluation.ClusterEvaluator(
            evaluator, self._cluster, self._feed, self.config.trainer.steps_per_loop
        )

        def score(split: Split) -> dict[str, float]:
            batches = self._source(split).batches_per_epoch()
            return workers.evaluate(split, batches or 0)

        return score

    def _score(self, evaluator: evaluation.Evaluator, split: Split) -> dict[str, float]:
        source = self._source(split)
        with _plain_errors(source):
            return evaluator.evaluate(source.dataset(shuffle=False, string_codes=True))

    def _sample(self, rows: int) -> dict[str, Any] | None:
        """Returns the first rows of the data, with the inputs of a server."""
        data = self.config.data
        splits: tuple[Split, ...] = ("test", "eval", "train")
        split = next((s for s in splits if data.has(s)), None)
        if not rows or split is None:
            return None
        source = self._job.source(split)
        with _plain_errors(source):
            batch = next(iter(source.dataset(shuffle=False)))
        return {name: batch[name][:rows] for name in self._job.feature_columns}

    @property
    def checkpoints(self) -> checkpoint_lib.CheckpointDir:
        """The job's checkpoints."""
        return self._checkpoints

    def metric(self, name: str) -> str:
        """Returns a metric's full name; adds the head to a name without one."""
        return run_actions.metric(self.config, name)


def checkpoints_of(config: schema.ExperimentConfig) -> checkpoint_lib.CheckpointDir:
    """Returns the checkpoints of a job."""
    return checkpoint_lib.CheckpointDir(
        pathlib.Path(config.model_dir) / "checkpoints",
        keep=config.trainer.keep_checkpoints,
    )


@contextlib.contextmanager
def _plain_errors(source: BatchSource) -> Iterator[None]:
    """Raises a reader's own error in place of TensorFlow's error around it."""
    try:
        yield
    except tf.errors.OpError as error:
        if source.failure is None:
            raise
        raise source.failure from error


def _count_examples(progress: run_lib.Progress, saved: Mapping[str, Any]) -> None:
    """Estimates the number of rows trained on for a checkpoint of 0.1.0."""
    if "examples" not in saved:
        progress.examples = progress.batch * progress.batch_size
        logging.warning(
            "The checkpoint does not say on how many rows it was trained; `examples` "
            "in metrics.jsonl continues from %d, an estimate from its batches.",
            progress.examples,
        )


@contextlib.contextmanager
def _large_integers_explained(run: run_lib.Run, source: BatchSource) -> Iterator[None]:
    """Adds to a step's error which integer caused it, and what to do."""
    try:
        yield
    except tf.errors.OpError as error:
        if not large_integers.is_cause(error):
            raise
        encoder = run.step.network.encoder
        message = large_integers.explain(encoder, source, run.place(run.progress.batch))
        raise large_integers.LargeIntegerError(message) from error


def _total_steps(
    trainer: Any, per_epoch: int | None, progress: run_lib.Progress
) -> int | None:
    ends = [trainer.max_steps]
    if trainer.epochs is not None and per_epoch is not None:
        left = trainer.epochs * per_epoch - progress.batch
        ends.append(progress.step + max(0, left))
    return min((end for end in ends if end is not None), default=None)
