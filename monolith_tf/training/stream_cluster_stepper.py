"""Steps on the messages of a topic, taken by the workers of a cluster."""

import collections
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from monolith_tf.data.stream import span_feed
from monolith_tf.data.stream.read_ahead import DoneSpan
from monolith_tf.data.stream.read_ahead import ReadSpan
from monolith_tf.data.stream.source import StreamSource
from monolith_tf.distribute import cluster as cluster_lib
from monolith_tf.training import calls
from monolith_tf.training import cluster_evaluation
from monolith_tf.training import cluster_scoring
from monolith_tf.training import evaluation
from monolith_tf.training import overlapped
from monolith_tf.training import progressive
from monolith_tf.training import run as run_lib
from monolith_tf.training import step as step_lib
from monolith_tf.training import stepper
from monolith_tf.training import workers_stepper
from monolith_tf.types import Nest
from monolith_tf.types import Tensor

_IDLE_SECS = 0.2
_POLL_SECS = 0.02


@dataclasses.dataclass
class _Open:
    """A span that is not finished.

    Attributes:
      read: The span, and the offsets before and after it.
      batch: The first batch that no finished call has taken.
      rows: Its rows; None until a worker has read it.
      is_done: Whether all its batches were trained on.
    """

    read: ReadSpan
    batch: int = 0
    rows: int | None = None
    is_done: bool = False


class StreamClusterStepper(workers_stepper.WorkersStepper):
    """Hands spans that the chief has planned to workers, which read and train.

    The position is before the first span that is not finished; with no step running,
    it says exactly what was trained on.
    """

    def __init__(
        self,
        step: step_lib.TrainStep,
        cluster: cluster_lib.Cluster,
        feed: span_feed.SpanFeed,
        source: StreamSource,
        run: run_lib.Run,
        steps_per_loop: int,
        evaluator: evaluation.Evaluator,
        scoring: progressive.Scoring | None = None,
    ) -> None:
        """Makes a stepper, and starts to plan.

        Args:
          step: The step function, its variables on parameter servers.
          cluster: The cluster.
          feed: How workers read spans.
          source: The topic.
          run: The run, at its first step.
          steps_per_loop: Most steps of a call.
          evaluator: Scores batches on the workers.
          scoring: Takes what they find of each batch before it is trained on; None
            scores none.
        """
        super().__init__(step, cluster, run, steps_per_loop)
        self._feed = feed
        self._evaluator = evaluator
        self._scoring = scoring
        self._source = source
        self._progress = run.progress
        self._most_waiting = self._limit * steps_per_loop
        self._ahead = source.read_from(
            run.progress.stream,
            run.model_dir / "spans",
            ahead_for_workers=self._most_waiting,
        )
        self._open: dict[int, _Open] = {}  # By number, in order.
        self._waiting: collections.deque[_Open] = collections.deque()
        self._next_span = (run.progress.stream or {}).get("span", 0)
        self._function: Any = tf.function(
            self._work,
            input_signature=[
                span_feed.PIECES,
                tf.TensorSpec([], tf.int64),
                tf.TensorSpec([], tf.int64),
            ],
        )

    def take(self, run: run_lib.Run, plan: stepper.Plan) -> stepper.StepsTaken:
        """See base class; returns without a step if none ends in a short time."""
        if self.is_quiet:
            self._since = time.perf_counter()
        deadline = time.monotonic() + _IDLE_SECS
        done = None
        while done is None and time.monotonic() < deadline:
            self._begin_calls(plan)
            if self.is_quiet:
                if self._is_at_end():
                    return self._no_steps(1)
                if self._begun >= plan.stop:  # Something is due.
                    break
                self._receive(_IDLE_SECS)
            else:
                done = self._calls.next_done_within(_POLL_SECS)
        if done is None:
            return self._no_steps(0)
        taken = self._taken(done)
        if self.is_quiet:
            self._settle(run.progress.step + int(taken.result.steps))
        return taken

    def finish(self) -> list[stepper.StepsTaken]:
        """See base class."""
        taken = []
        while not self.is_quiet:
            taken.append(self._taken(self._calls.next_done()))
        return taken

    def close(self) -> None:
        """See base class."""
        self._source.close()

    @property
    def _first_unfinished(self) -> int:
        for number, span in self._open.items():
            return span_feed.batch_number(number, span.batch)
        return span_feed.batch_number(self._next_span, 0)

    def _is_at_end(self) -> bool:
        return not self._open and self._ahead.is_done

    def _no_steps(self, asked: int) -> stepper.StepsTaken:
        nothing = tf.nest.map_structure(lambda t: t.numpy(), self._step.no_result())
        return stepper.StepsTaken(nothing, asked, self._progress.batch, 0.0)

    def _receive(self, secs: float = 0.0) -> None:
        """Takes the spans that are planned; waits for the first one if given time."""
        while len(self._waiting) < self._most_waiting:
            read = self._ahead.take(secs)
            if read is None:
                return
            span = self._open[read.span.number] = _Open(read)
            self._next_span = read.span.number + 1
            self._waiting.append(span)
            secs = 0.0

    def _begin_calls(self, plan: stepper.Plan) -> None:
        while self._calls.under_way < self._limit and self._begun < plan.stop:
            self._receive()
            if not self._waiting:
                return
            free = self._limit - self._calls.under_way
            steps = min(plan.end(self._begun), plan.stop) - self._begun
            self._begin(steps, -(-len(self._waiting) // free))

    def _begin(self, steps: int, most: int) -> None:
        """Starts a call.

        Args:
          steps: Most steps.
          most: Most spans.
        """
        given: list[_Open] = []
        asked = 0
        while self._waiting and len(given) < most:
            batches = self._batches(self._waiting[0])
            if given and asked + batches > steps:
                break
            given.append(self._waiting.popleft())
            asked += batches
        asked = min(asked, steps)
        pieces = [
            span_feed.Piece(span.read.span, span.read.skipped, span.batch)
            for span in given
        ]
        self._calls.begin(
            self._function,
            (span_feed.to_numbers(pieces), asked, int(time.time())),
            (given, asked),
        )
        self._begun += asked

    def _batches(self, span: _Open) -> int:
        """Returns the batches that are left of a span.

        If it was never read, this is a guess, at least 1.
        """
        rows, least = span.rows, 0
        if rows is None:
            least = 1
            rows = self._source.rows_of(
                sum(one.end - one.begin for one in span.read.span.ranges)
            )
        size = self._source.batch_size
        batches = -(-max(rows - span.read.skipped, 0) // size) - span.batch
        return max(batches, least)

    def _work(
        self, pieces: Tensor, steps: Tensor, now_secs: Tensor
    ) -> tuple[step_lib.LoopResult, Nest, Nest]:
        iterator = iter(self._feed.dataset(pieces))
        scored: Nest = ()
        if self._scoring is None:
            result = overlapped.loop(
                self._step, iterator, steps, now_secs, self._cluster.spec.pipeline
            )
        else:
            result, scored = cluster_scoring.loop(
                self._step, self._evaluator, iterator, steps, now_secs
            )
        # The worker's counts are complete only after all batches were read.
        with tf.control_dependencies(tf.nest.flatten(result)):
            with_rows = self._scoring is not None
            return result, scored, self._feed.news(pieces, with_rows=with_rows)

    def _taken(self, done: calls.Done) -> stepper.StepsTaken:
        """Takes the result of a call in; what it did not finish will be done again."""
        given, asked = done.tag
        result, scored, of_spans = done.result
        news = span_feed.SpanNews(*of_spans)
        rows = self._source.hear(news, self._open.keys())
        if self._scoring is not None:
            self._keep(self._scoring, scored, news, given)
        steps = left = int(result.steps)
        again = []
        for span in given:
            span.rows = rows.get(span.read.span.number, span.rows)
            batches = 1 if span.rows is None else max(self._batches(span), 0)
            taken = min(batches, left)
            span.batch, left = span.batch + taken, left - taken
            span.is_done = span.rows is not None and taken == batches
            if not span.is_done:
                again.append(span)
        self._waiting.extendleft(reversed(again))
        self._begun -= asked - steps
        if not bool(result.finite):
            bad = next(span for span in again if span.rows is not None)
            self._source.hold_of(
                self._progress.batch + steps, bad.read.span, self._trained(bad)
            )
        batch = self._progress.batch
        self._move()
        return stepper.StepsTaken(result, steps, batch, self._seconds())

    def _keep(
        self,
        scoring: progressive.Scoring,
        scored: Nest,
        news: span_feed.SpanNews,
        given: list[_Open],
    ) -> None:
        """Keeps what a call found of its batches, with their rows' times."""
        places = []
        for span in given:
            of_span = news.rows[news.rows[:, 0] == span.read.span.number]
            places.append(of_span[self._trained(span) :])
        rows = np.concatenate(places)
        begin = 0
        for found in cluster_evaluation.batches_of(*scored):
            end = begin + len(next(iter(found["predictions"].values())))
            scoring.keep(found, rows[begin:end, 1], rows[begin:end, 2])
            begin = end

    def _move(self) -> None:
        """Moves the position behind all spans before the first that is not finished."""
        for number, span in list(self._open.items()):
            if not span.is_done:
                break
            del self._open[number]
            self._progress.stream = self._source.position(
                number + 1, span.read.end, done=[]
            )
        if not self.is_quiet:
            return  # The position matters only when no step is running.
        spans = iter(self._open.values())
        first = next(spans, None)
        if first is not None:
            self._progress.stream = self._source.position(
                first.read.span.number,
                first.read.begin,
                self._trained(first),
                [*self._done_spans(spans)],
            )

    def _done_spans(self, spans: Iterator[_Open]) -> Iterator[DoneSpan]:
        for span in spans:
            rows = self._trained(span)
            if rows:
                yield DoneSpan(span.read.span.number, rows, span.read.span.ranges)

    def _trained(self, span: _Open) -> int:
        """Returns the rows of a span that were trained on, since it was planned."""
        rows = span.read.skipped + span.batch * self._source.batch_size
        return rows if span.rows is None else min(rows, span.rows)
