"""What a training run is made of, as its actions see it."""

import dataclasses
import pathlib
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

from monolith_tf.training import architecture
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import recorder as recorder_lib
from monolith_tf.training import step as step_lib


@dataclasses.dataclass
class Progress:
    """How far a run is; all of it is in every checkpoint.

    Attributes:
      step: Steps taken.
      batch: Batches of the data consumed, all epochs together.
      batch_size: Rows in a batch, the unit of `batch`.
      metrics: The last evaluation's metrics.
      best: Who watches -> best `value` of its metric so far, the `step` of it, and the
        evaluations `waited` since.
      stop: Why the run is to end before its last step, or empty.
    """

    step: int = 0
    batch: int = 0
    batch_size: int = 0
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    best: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    stop: str = ""


@dataclasses.dataclass
class Window:
    """What was seen since the last log line.

    Attributes:
      steps: Steps taken.
      examples: Rows trained on.
      seconds: Time spent in training steps, without evaluation and checkpoints.
      loss_sum: Sum of the steps' losses.
      norm: Global gradient norm of the last step.
      auxiliary: Name -> sum of an auxiliary loss.
    """

    steps: int = 0
    examples: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    norm: float = 0.0
    auxiliary: dict[str, float] = dataclasses.field(default_factory=dict)

    def add(self, result: step_lib.LoopResult, seconds: float) -> None:
        """Counts one call of the loop."""
        self.steps += int(result.steps)
        self.examples += int(result.examples)
        self.seconds += seconds
        self.loss_sum += float(result.loss_sum)
        self.norm = float(result.norm)
        for name, value in result.auxiliary.items():
            self.auxiliary[name] = self.auxiliary.get(name, 0.0) + float(value)


@dataclasses.dataclass(kw_only=True)
class Run:
    """One training run: what actions may read, and the little they may change.

    Attributes:
      model_dir: Where the run leaves what it makes.
      step: The step function, with the network and the store in it.
      progress: How far the run is.
      window: What was trained since the last log line.
      total_steps: The step at which the run ends, or None where that is not known.
      steps_per_epoch: Batches of an epoch, or None where that is not known.
      recorder: Where numbers go.
      checkpoints: The run's checkpoints.
      evaluate: Scores a split ("eval", "test") with the present weights.
      config_yaml: The resolved config.
      static_state: What every checkpoint holds besides progress: slots, statistics.
    """

    model_dir: pathlib.Path
    step: step_lib.TrainStep
    progress: Progress
    window: Window
    total_steps: int | None
    steps_per_epoch: int | None
    recorder: recorder_lib.Recorder
    checkpoints: checkpoint_lib.CheckpointDir
    evaluate: Callable[[str], dict[str, float]]
    config_yaml: str
    static_state: Mapping[str, Any]

    def save_checkpoint(self) -> checkpoint_lib.Checkpoint:
        """Writes a checkpoint of the present step."""
        return self.checkpoints.save(
            self.step.state,
            self.step.network.store,
            step=self.progress.step,
            state={
                **self.static_state,
                "progress": dataclasses.asdict(self.progress),
                "window": dataclasses.asdict(self.window),
                "search": architecture.describe(self.step.network.model),
            },
            config_yaml=self.config_yaml,
        )

    def record(self, phase: str, values: Mapping[str, float]) -> None:
        """Records numbers under the present step."""
        self.recorder.record(phase, self.progress.step, values)

    def stop(self, why: str) -> None:
        """Ends the run after the present actions."""
        self.progress.stop = why
