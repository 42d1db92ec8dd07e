"""This project's job, in its own loop, without actions between steps."""

import copy
import dataclasses
import pathlib

from monolith_tf.data import feed as feed_lib
from monolith_tf.distribute import cluster as cluster_lib
from monolith_tf.distribute import spec as spec_lib
from monolith_tf.experiment import build
from monolith_tf.models import network as network_lib
from monolith_tf.training import checkpoint_dir
from monolith_tf.training import cluster_stepper
from monolith_tf.training import loop
from monolith_tf.training import recorder
from monolith_tf.training import run as run_lib
from monolith_tf.training import stepper


class Ours:
    """A job with its own store.

    Args:
      job: The job's parts.
      cluster: The cluster to train on; None for this process.
      feed: The workers' feed; None for this process.
      overlaps: Whether the pipeline is on.
    """

    def __init__(
        self,
        job: build.Job,
        cluster: cluster_lib.Cluster | None,
        feed: feed_lib.Feed | None,
        overlaps: bool,
    ) -> None:
        identity, source = job.settle(None), job.source("train")
        model_dir = pathlib.Path(job.config.model_dir)
        self._loop = job.config.trainer.steps_per_loop
        self._run = run_lib.Run(
            model_dir=model_dir,
            step=job.train_step(identity, fresh=True),
            progress=run_lib.Progress(),
            window=run_lib.Window(),
            total_steps=0,
            steps_per_epoch=source.batches_per_epoch(),
            recorder=recorder.Recorder(model_dir, summaries=False),
            checkpoints=checkpoint_dir.CheckpointDir(model_dir / "checkpoints"),
            evaluate=lambda split: {},
            config_yaml="",
            static_state=identity.to_json(),
        )
        if cluster is None or feed is None:
            batches = source.dataset(num_epochs=None, string_codes=True)
            self._stepper = stepper.LocalStepper(self._run.step, batches)
            return
        on = int(overlaps)
        pipeline = spec_lib.PipelineSpec(prefetch=on, deferred_push=on)
        own = copy.copy(cluster)
        own.spec = dataclasses.replace(cluster.spec, pipeline=pipeline)
        self._stepper = cluster_stepper.ClusterStepper(
            self._run.step, own, feed, self._run, self._loop
        )

    @property
    def network(self) -> network_lib.Network:
        """The trained variables."""
        return self._run.step.network

    def run(self, steps: int) -> None:
        """Runs further steps."""
        self._run.total_steps += steps
        loop.train(
            self._run,
            self._stepper,
            actions=[],
            steps_per_loop=self._loop,
            explain=lambda batch: f"Batch {batch}.",
        )
