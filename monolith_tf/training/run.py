"""The state of a training run, for its actions."""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from collections.abc import Mapping

from monolith_tf import lineage as lineage_lib
from monolith_tf.data import windows
from monolith_tf.data.spec import Split
from monolith_tf.embedding.saved.live_copy import LiveCopy
from monolith_tf.training import architecture
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import checkpoint_dir
from monolith_tf.training import lineage_mark
from monolith_tf.training import recorder as recorder_lib
from monolith_tf.training import step as step_lib
from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping

INTERRUPTED = "interrupted"

LIVE_BYTES = 1 << 26
"""Smaller stores are written into a checkpoint while no step runs: it takes no time."""


@dataclasses.dataclass
class Progress:
    """The progress of a run; every checkpoint contains it.

    Attributes:
      step: Steps taken.
      batch: Position in the data: batches consumed of the current files, in all epochs
        together.
      batch_size: Rows in a batch, the unit of `batch`.
      begun: The cut of an epoch that began with other batches or in another order: the
        `epoch`, and `shift` and `order` of its `Cut`; empty if there is none.
      stream: Position in a topic, as `read_ahead.position`; None if the data are files.
      former_streams: Topic -> position in topics that the job read before.
      examples: Rows trained on, all epochs together.
      clipped: Feature -> number of training values that its `clip` changed.
      metrics: The last evaluation's metrics.
      best: Watching class -> best `value` of its metric so far, its `step`, how many
        evaluations it `waited` since, the `metric`, and whether it `rises`.
      evaluated_on: The data of the last evaluation, as in JSON, and of `best`.
      stop: Why the run ends before its last step, or empty; begins with `INTERRUPTED`
        if it is to be resumed.
      overdue: Names of actions that were due at this step when the run was interrupted;
        a resumed run begins with them.
    """

    step: int = 0
    batch: int = 0
    batch_size: int = 0
    begun: JsonDict = dataclasses.field(default_factory=dict)
    stream: JsonDict | None = None
    former_streams: dict[str, JsonDict] = dataclasses.field(default_factory=dict)
    examples: int = 0
    clipped: dict[str, int] = dataclasses.field(default_factory=dict)
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    best: dict[str, JsonDict] = dataclasses.field(default_factory=dict)
    evaluated_on: JsonMapping | None = None
    stop: str = ""
    overdue: list[str] = dataclasses.field(default_factory=list)

    @property
    def is_interrupted(self) -> bool:
        """Whether the run ends to be resumed: by a user, or to restart."""
        return self.stop.startswith(INTERRUPTED)

    def cut(self, epoch: int) -> windows.Cut:
        """Returns how an epoch is cut into batches."""
        if self.begun.get("epoch") != epoch:
            return windows.Cut()
        order = self.begun["order"]
        return windows.Cut(self.begun["shift"], None if order is None else tuple(order))


@dataclasses.dataclass
class Window:
    """Values accumulated since the last log line.

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
    """One training run, as actions see it.

    Attributes:
      model_dir: The folder for everything that the run writes.
      step: The step function, with the network and the store.
      progress: The progress of the run.
      window: Values accumulated since the last log line.
      total_steps: The step at which the run ends, or None if not known.
      steps_per_epoch: Batches of an epoch, or None if not known.
      recorder: Records metrics.
      checkpoints: The run's checkpoints.
      evaluate: Scores a split ("eval", "test") with the current weights.
      config_yaml: The resolved config.
      static_state: The constant part of every checkpoint's state: slots, statistics,
        and the data to which the position refers.
      saved: The last checkpoint that this run wrote or resumed from.
      evaluated_on: Returns the data of the last evaluation, as in JSON.
      on_saved: Called with each checkpoint that the run writes.
      writes_deltas: Whether checkpoints that need not be whole are deltas.
      copies_live: Whether large tables are written into whole checkpoints while steps
        run.
      newest: What was last made, such as "checkpoint" -> when, by `time.monotonic`. The
        `stream` records of a topic have the age of each, as `<name>_age_secs`.
    """

    model_dir: pathlib.Path
    step: step_lib.TrainStep
    progress: Progress
    window: Window
    total_steps: int | None
    steps_per_epoch: int | None
    recorder: recorder_lib.Recorder
    checkpoints: checkpoint_dir.CheckpointDir
    evaluate: Callable[[Split], dict[str, float]]
    config_yaml: str
    static_state: JsonMapping
    saved: checkpoint_lib.Checkpoint | None = None
    evaluated_on: Callable[[], JsonMapping] = dict
    on_saved: list[Callable[[checkpoint_lib.Checkpoint], object]] = dataclasses.field(
        default_factory=list
    )
    writes_deltas: bool = False
    copies_live: bool = False
    newest: dict[str, float] = dataclasses.field(default_factory=dict)
    _wanted: list[Callable[[checkpoint_lib.Checkpoint], object]] | None = None
    _wants_whole: bool = False
    _copy: LiveCopy | None = None

    def place(self, batch: int) -> tuple[int, int, windows.Cut]:
        """Returns the epoch of a batch, its place in it, and how the epoch is cut.

        Args:
          batch: Its number, as `Progress.batch`. It is in epoch 0 if the number of
            batches per epoch is not known.
        """
        if self.steps_per_epoch is None:
            return 0, batch, windows.Cut()
        epoch, place = divmod(batch, self.steps_per_epoch)
        return epoch, place, self.progress.cut(epoch)

    def want_checkpoint(
        self,
        then: Callable[[checkpoint_lib.Checkpoint], object] | None = None,
        *,
        is_whole: bool = False,
    ) -> None:
        """Requests a checkpoint of the current step.

        If several actions request one at a step, one checkpoint is written, after all
        of them have acted.

        Args:
          then: Called with the checkpoint.
          is_whole: Whether it must not be a delta.
        """
        self._wants_whole |= is_whole
        self._wanted = (self._wanted or []) + ([] if then is None else [then])

    def save_wanted(self) -> None:
        """Writes the requested checkpoint, if any.

        Skips writing if the last checkpoint already has the same state.
        """
        if self._wanted is None:
            return
        wanted, self._wanted = self._wanted, None
        wants_whole, self._wants_whole = self._wants_whole, False
        state = self._state()
        if self.saved is None or not _holds(self.saved, self.progress.step, state):
            lineage = lineage_lib.of_state(state)
            lineage_mark.write(self.model_dir, lineage, self.progress.step)
            as_delta = self.writes_deltas and not wants_whole
            copy: LiveCopy | None = None
            if self._copy is not None and not as_delta:
                copy, self._copy = self._copy, None
                copy.wait()
            self.saved = self.checkpoints.save(
                self.step.state,
                self.step.network.store,
                step=self.progress.step,
                state=state,
                config_yaml=self.config_yaml,
                as_delta=as_delta,
                copy=copy,
            )
            wanted = [*self.on_saved, *wanted]
        for then in wanted:
            then(self.saved)

    def begin_copy(self) -> bool:
        """Begins a whole checkpoint, which is written while steps run.

        When `copy_is_through`, request the checkpoint: it is of the step then.

        Returns:
          Whether one is under way; if not, write it at once.
        """
        if self._copy is None and self.copies_live:
            store = self.step.network.store
            tables = store.table_counters().values()
            if sum(table["bytes"] for table in tables) >= LIVE_BYTES:
                self._copy = self.checkpoints.begin_copy(store, self.progress.step)
        return self._copy is not None

    @property
    def copy_is_through(self) -> bool:
        """Whether all that remains of a checkpoint is what changed since it began."""
        return self._copy is not None and self._copy.is_done

    def drop_copy(self) -> None:
        """Gives up a checkpoint that is under way."""
        if self._copy is not None:
            self._copy.stop()
            self._copy = None

    def save_checkpoint(self) -> checkpoint_lib.Checkpoint:
        """Returns a checkpoint of the current step; writes it now if there is none."""
        saved: list[checkpoint_lib.Checkpoint] = []
        self.want_checkpoint(saved.append)
        self.save_wanted()
        return saved[0]

    def _state(self) -> JsonDict:
        return {
            **self.static_state,
            "progress": dataclasses.asdict(self.progress),
            "window": dataclasses.asdict(self.window),
            "search": architecture.describe(self.step.network.model),
        }

    def record(self, phase: str, values: Mapping[str, float]) -> None:
        """Records numbers at the current step."""
        self.recorder.record(phase, self.progress.step, values)

    def stop(self, why: str) -> None:
        """Stops the run after the current actions."""
        self.progress.stop = why


def _holds(saved: checkpoint_lib.Checkpoint, step: int, state: JsonMapping) -> bool:
    """Returns whether a checkpoint is of this step, with the same state."""
    # Rows and dense variables change only with the step, or with evaluation results.
    as_read = json.loads(json.dumps(state))
    return saved.step == step and saved.manifest["state"] == as_read
