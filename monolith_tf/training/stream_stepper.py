"""Steps on the messages of a topic, as they arrive."""

import collections
import dataclasses
import functools
import time
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from monolith_tf.data import pipeline
from monolith_tf.data.stream import read_ahead
from monolith_tf.data.stream.source import StreamSource
from monolith_tf.data.windows import Window
from monolith_tf.training import progressive
from monolith_tf.training import run as run_lib
from monolith_tf.training import step as step_lib
from monolith_tf.training import stepper as stepper_lib
from monolith_tf.types import Tensor

_IDLE_SECS = 0.2


class StreamStepper(stepper_lib.Stepper):
    """Trains on spans in this process, and keeps the position.

    While no message arrives it returns without a step, so that actions stay on time and
    the job can be interrupted.
    """

    def __init__(
        self,
        source: StreamSource,
        run: run_lib.Run,
        scoring: progressive.Scoring | None = None,
    ) -> None:
        """Makes a stepper, and starts to read.

        Args:
          source: The topic.
          run: The run, at its first step.
          scoring: Scores each batch before it is trained on; None scores none.
        """
        self._source = source
        self._columns = source.columns
        self._batch_size = source.batch_size
        self._step = run.step
        self._scoring = scoring
        work = self._train
        if scoring is not None:
            work = functools.partial(self._score_and_train, scoring)
        self._ahead = source.read_from(run.progress.stream, run.model_dir / "spans")
        self._spans: collections.deque[read_ahead.ReadSpan] = collections.deque()
        self._done = 0  # Rows of the first span's window that were trained on.
        self._function = tf.function(
            work,
            input_signature=[
                tuple(pipeline.signature(source.columns)),
                tf.TensorSpec([], tf.int64),
            ],
        )

    def take(self, run: run_lib.Run, plan: stepper_lib.Plan) -> stepper_lib.StepsTaken:
        """See base class."""
        wanted = plan.end(run.progress.step) - run.progress.step
        window, steps, spans, done = self._next(1 if self._scoring else wanted)
        if not steps:
            self._move(run, spans, done)
            asked = 1 if self._ahead.is_done and not self._spans else 0
            nothing = tf.nest.map_structure(_numpy, self._step.no_result())
            return stepper_lib.StepsTaken(nothing, asked, run.progress.batch, 0.0)
        self._source.hold(run.progress.batch, window)
        begin = time.perf_counter()
        flat = pipeline.flatten(window, 0, self._columns)
        found, result = self._function(flat, tf.constant(int(time.time()), tf.int64))
        result = tf.nest.map_structure(_numpy, result)  # Waits for it.
        seconds = time.perf_counter() - begin
        if self._scoring is not None:
            self._scoring.keep(found, _times(window), window.files)
        if int(result.steps) == steps:  # Else the loss was not finite.
            self._move(run, spans, done)
        return stepper_lib.StepsTaken(result, steps, run.progress.batch, seconds)

    def close(self) -> None:
        """See base class."""
        self._source.close()

    def _train(
        self, flat: pipeline.Flat, now_secs: Tensor
    ) -> tuple[dict[str, Any], step_lib.LoopResult]:
        batches = self._batches(flat)
        every = tf.constant(tf.int64.max, tf.int64)
        return {}, self._step.loop(iter(batches), every, now_secs)

    def _score_and_train(
        self, scoring: progressive.Scoring, flat: pipeline.Flat, now_secs: Tensor
    ) -> tuple[dict[str, Any], step_lib.LoopResult]:
        columns = self._batches(flat).take(1).get_single_element()
        return scoring.score_and_train(columns, now_secs)

    def _batches(self, flat: pipeline.Flat) -> tf.data.Dataset:
        windows = tf.data.Dataset.from_tensors(flat)
        return pipeline.batches(
            windows, self._columns, self._batch_size, string_codes=True
        )

    def _next(self, wanted: int) -> tuple[Window, int, int, int]:
        """Returns the rows of the next steps, as one window.

        Returns:
          The rows, the number of steps that take them, the spans that end with them,
          and the rows that they take of the span after these.
        """
        pieces: list[Window] = []
        steps = spans = 0
        done = self._done
        while steps < wanted:
            if spans == len(self._spans) and not self._read(wait=not steps):
                break
            rows = self._spans[spans].window
            taken = min(-(-(len(rows.rows) - done) // self._batch_size), wanted - steps)
            end = min(done + taken * self._batch_size, len(rows.rows))
            pieces.append(_slice(rows, done, end))
            steps += taken
            is_full = end - done == taken * self._batch_size
            done = end
            if end < len(rows.rows):
                break
            spans, done = spans + 1, 0
            if not is_full:  # The last batch of a window may be short, no other.
                break
        return _joined(pieces), steps, spans, done

    def _read(self, *, wait: bool) -> bool:
        """Waits for another span; returns whether one has come."""
        span = self._ahead.take(_IDLE_SECS if wait else 0.0)
        if span is not None:
            self._spans.append(span)
        return span is not None

    def _move(self, run: run_lib.Run, spans: int, done: int) -> None:
        """Moves the position behind some spans and some rows of the next one."""
        for _ in range(spans):
            span = self._spans.popleft()
            number = span.span.number + 1
            run.progress.stream = self._source.position(number, span.end)
        self._done = done
        if done:
            span = self._spans[0]
            run.progress.stream = self._source.position(
                span.span.number, span.begin, span.skipped + done
            )


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.numpy()


def _slice(window: Window, begin: int, end: int) -> Window:
    return dataclasses.replace(
        window,
        table=window.table.slice(begin, end - begin),
        files=window.files[begin:end],
        rows=window.rows[begin:end],
        times=None if window.times is None else window.times[begin:end],
    )


def _joined(windows: list[Window]) -> Window:
    if len(windows) == 1:
        return windows[0]
    if not windows:
        return Window(0, pa.table({}), np.zeros(0, np.int32), np.zeros(0, np.int64))
    tables = pa.concat_tables([window.table for window in windows])
    return Window(
        windows[0].index,
        tables.unify_dictionaries().combine_chunks(),
        np.concatenate([window.files for window in windows]),
        np.concatenate([window.rows for window in windows]),
        np.concatenate([_times(window) for window in windows]),
    )


def _times(window: Window) -> np.ndarray:
    return np.full(len(window.rows), -1) if window.times is None else window.times
