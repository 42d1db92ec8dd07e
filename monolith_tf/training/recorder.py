"""Writes a run's numbers to `metrics.jsonl` and TensorBoard, the same to both."""

import contextlib
import pathlib
from collections.abc import Iterator
from collections.abc import Mapping

import tensorflow as tf

from monolith_tf.training import metrics_log


class Recorder:
    """Writes each set of numbers to both places.

    TensorBoard's files are in `<model_dir>/tensorboard/<phase>`; steps that a resumed
    job repeats appear in them twice.
    """

    def __init__(self, model_dir: pathlib.Path, *, summaries: bool = True) -> None:
        """Makes a recorder.

        Args:
          model_dir: The job's folder.
          summaries: Whether TensorBoard also gets the numbers.
        """
        self.log = metrics_log.MetricsLog(model_dir / "metrics.jsonl")
        self._tensorboard = model_dir / "tensorboard" if summaries else None
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def record(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        """Records numbers by name."""
        self.log.append(phase, step, values)
        with self.summaries(phase, step):
            for name, value in values.items():
                tf.summary.scalar(name, value)

    @contextlib.contextmanager
    def summaries(self, phase: str, step: int) -> Iterator[None]:
        """Sends summaries written inside the context to TensorBoard, if enabled."""
        if self._tensorboard is None:
            with tf.summary.create_noop_writer().as_default():
                yield
            return
        if phase not in self._writers:
            folder = str(self._tensorboard / phase)
            self._writers[phase] = tf.summary.create_file_writer(folder)
        with self._writers[phase].as_default(step=step):
            yield
        self._writers[phase].flush()

    def close(self) -> None:
        """Closes TensorBoard's files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
