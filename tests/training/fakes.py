"""A run without a model: steps only count, checkpoints are only noted."""

import pathlib
import shutil
import tempfile
import types
import weakref

import numpy as np
import tensorflow as tf

from monolith_tf.training import run as run_lib
from monolith_tf.training import step as step_lib
from monolith_tf.training import stepper as stepper_lib

COUNTERS = ("rows", "inserted", "refused", "overflow", "dropped", "bytes")


class Store:
    """Has the counters that a test sets."""

    def __init__(self):
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.maintained = []

    def describe(self):
        return []

    def table_counters(self):
        return {"user": dict(self.counters)}

    def maintain(self, step, now_secs):
        self.maintained.append(step)
        return types.SimpleNamespace(expired={}, evicted={})


class Checkpoints:
    """Notes which steps were saved."""

    def __init__(self):
        self.steps = []
        self.deltas = []
        self.states = []
        self.copies = []
        self.best = []

    def save(self, root, store, *, step, state, config_yaml, as_delta, copy):
        self.steps.append(step)
        self.deltas += [step] if as_delta else []
        self.states.append(state)
        self.copies += [copy] if copy is not None else []
        manifest = {"step": step, "state": state}
        path = pathlib.Path(f"ckpt-{step:08d}")
        return types.SimpleNamespace(step=step, path=path, manifest=manifest)

    def mark_best(self, name, metric, value, evaluated_on):
        del evaluated_on
        self.best.append((name, metric, value))


class Recorder:
    """Keeps the records."""

    def __init__(self):
        self.records = []

    def record(self, phase, step, values):
        self.records.append((phase, step, dict(values)))

    def of(self, phase):
        return [
            (step, values) for found, step, values in self.records if found == phase
        ]


def run(*, total_steps=None, evaluate=None, progress=None):
    network = types.SimpleNamespace(store=Store(), model=tf.Module())
    step = types.SimpleNamespace(
        network=network, state=tf.Module(), rate_scale=tf.Variable(1.0)
    )
    folder = pathlib.Path(tempfile.mkdtemp())
    made = run_lib.Run(
        model_dir=folder,
        step=step,
        progress=progress or run_lib.Progress(batch_size=10),
        window=run_lib.Window(),
        total_steps=total_steps,
        steps_per_epoch=None,
        recorder=Recorder(),
        checkpoints=Checkpoints(),
        evaluate=evaluate or (lambda split: {"loss": 1.0}),
        config_yaml="",
        static_state={"job": "a"},
    )
    weakref.finalize(made, shutil.rmtree, folder, ignore_errors=True)
    return made


class Stepper(stepper_lib.Stepper):
    """Takes the requested steps, until the data ends.

    Args:
      num_batches: Number of batches; None for no end.
      at_step: Called with the reached step after each call.
      finite: Whether losses are finite.
    """

    maintain_every = 1000

    def __init__(self, num_batches=None, at_step=None, finite=True):
        self.calls = []
        self._num_batches = num_batches
        self._at_step = at_step
        self._finite = finite

    def take(self, run, plan):
        step = run.progress.step
        asked = plan.end(step) - step
        steps = asked
        if self._num_batches is not None:
            steps = min(asked, self._num_batches - step)
        if not self._finite:
            steps = asked - 1
        self.calls.append((step, steps))
        if self._at_step is not None:
            self._at_step(step + steps)
        result = step_lib.LoopResult(
            steps=np.int64(steps),
            examples=np.int64(10 * steps),
            loss_sum=np.float32(0.5 * steps),
            finite=np.bool_(self._finite),
            norm=np.float32(2.0),
            auxiliary={"half": np.float32(0.25 * steps)},
            clipped={},
        )
        return stepper_lib.StepsTaken(result, asked, run.progress.batch, 0.5)
