"""Tests of steppers: how many steps they take, from where, and what they report."""

import types
from unittest import mock

import numpy as np
import tensorflow as tf

from monolith_tf import testing
from monolith_tf.training import cluster_stepper
from monolith_tf.training import progressive
from monolith_tf.training import run as run_lib
from monolith_tf.training import step as step_lib
from monolith_tf.training import stepper as stepper_lib
from monolith_tf.training import workers_stepper
from tests.training import fakes


def _result(steps):
    return step_lib.LoopResult(
        steps=tf.constant(steps, tf.int64),
        examples=tf.constant(10 * steps, tf.int64),
        loss_sum=tf.constant(0.0),
        finite=tf.constant(True),
        norm=tf.constant(0.0),
        auxiliary={},
        clipped={},
    )


class _Step:
    """Sums its numbers, in a loop like that of `TrainStep`."""

    def __init__(self):
        self.seen = tf.Variable("", trainable=False)
        self.now = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.traces = 0

    def loop(self, iterator, steps, now_secs):
        self.traces += 1
        self.now.assign(now_secs)
        taken = tf.constant(0, tf.int64)
        more = tf.constant(True)
        while tf.logical_and(taken < steps, more):
            optional = iterator.get_next_as_optional()
            more = optional.has_value()
            if more:
                self.seen.assign(self.seen + tf.strings.as_string(optional.get_value()))
                taken += 1
        return _result(0)._replace(steps=taken, examples=10 * taken)


def _plan(steps, stop=1000):
    return stepper_lib.Plan(lambda step: step + steps, stop)


def _run(step=0, batch=0, steps_per_epoch=None):
    run = fakes.run(progress=run_lib.Progress(step=step, batch=batch, batch_size=10))
    run.steps_per_epoch = steps_per_epoch
    return run


class LocalStepperTest(testing.TestCase):
    def test_takes_what_the_plan_says_and_goes_on_where_it_was(self):
        step, run = _Step(), _run(step=40, batch=42)
        stepper = stepper_lib.LocalStepper(step, tf.data.Dataset.range(8))
        for steps in (3, 2):
            taken = stepper.take(run, _plan(steps))
            self.assertEqual(
                (taken.asked, taken.batch, int(taken.result.steps)), (steps, 42, steps)
            )
            self.assertIsInstance(taken.result.steps, np.int64)
        self.assertEqual(step.seen.numpy(), b"01234")
        self.assertEqual(step.traces, 1)

    def test_takes_fewer_where_the_data_end(self):
        step = _Step()
        stepper = stepper_lib.LocalStepper(step, tf.data.Dataset.range(2))
        taken = stepper.take(_run(), _plan(5))
        self.assertEqual((taken.asked, int(taken.result.steps)), (5, 2))
        self.assertEqual(int(stepper.take(_run(), _plan(5)).result.steps), 0)

    def test_says_how_long_it_took_and_steps_know_the_time(self):
        step = _Step()
        stepper = stepper_lib.LocalStepper(step, tf.data.Dataset.range(2))
        with (
            mock.patch.object(stepper_lib.time, "perf_counter", side_effect=[5.0, 7.5]),
            mock.patch.object(stepper_lib.time, "time", return_value=1234.9),
        ):
            taken = stepper.take(_run(), _plan(1))
        self.assertEqual(taken.seconds, 2.5)
        self.assertEqual(int(step.now), 1234)

    def test_nothing_is_ever_under_way(self):
        stepper = stepper_lib.LocalStepper(_Step(), tf.data.Dataset.range(2))
        self.assertTrue(stepper.is_quiet)
        self.assertEqual(stepper.finish(), [])
        self.assertEqual(stepper.maintain_every, 1)


class _Evaluator:
    """Scores by summing."""

    def __init__(self):
        self.scored = []

    def forward(self, columns):
        return {"x": columns["x"]}

    def score(self, batches):
        self.scored.append([found["x"].tolist() for found in batches])
        return {"loss": 1.0}


class _Counting:
    """Takes steps on columns like `TrainStep`, one per call."""

    def __init__(self):
        self.total = tf.Variable(0.0, trainable=False)

    def no_result(self):
        return _result(0)

    def __call__(self, columns, now_secs):
        del now_secs
        self.total.assign_add(tf.reduce_sum(columns["x"]))
        return step_lib.Gradients(
            loss=tf.constant(2.0),
            norm=tf.constant(3.0),
            auxiliary={},
            examples=tf.size(columns["x"], tf.int64),
            dense=[],
            rows={},
            clipped={},
        )


class ProgressiveStepperTest(testing.TestCase):
    def test_each_batch_is_scored_once_and_trained_on(self):
        step, evaluator, run = _Counting(), _Evaluator(), _run(step=4, batch=6)
        dataset = tf.data.Dataset.from_tensor_slices({"x": [1.0, 2.0, 3.0]}).batch(2)
        scoring = progressive.Scoring(step, evaluator)
        stepper = progressive.ProgressiveStepper(step, dataset, scoring)
        taken = stepper.take(run, _plan(5))
        self.assertEqual((taken.asked, taken.batch), (1, 6))
        self.assertEqual(int(taken.result.steps), 1)
        self.assertEqual(int(taken.result.examples), 2)
        self.assertEqual(float(taken.result.loss_sum), 2.0)
        self.assertEqual(scoring.score("eval"), {"loss": 1.0})
        taken = stepper.take(run, _plan(5))
        self.assertEqual(int(taken.result.examples), 1)
        scoring.score("eval")
        self.assertEqual(evaluator.scored, [[[1.0, 2.0]], [[3.0]]])
        self.assertEqual(float(step.total), 6.0)
        taken = stepper.take(run, _plan(5))
        self.assertEqual((taken.asked, int(taken.result.steps)), (1, 0))

    def test_says_how_long_it_took(self):
        dataset = tf.data.Dataset.from_tensors({"x": [1.0]})
        step = _Counting()
        scoring = progressive.Scoring(step, _Evaluator())
        stepper = progressive.ProgressiveStepper(step, dataset, scoring)
        with mock.patch.object(
            progressive.time, "perf_counter", side_effect=[5.0, 7.5]
        ):
            self.assertEqual(stepper.take(_run(), _plan(1)).seconds, 2.5)


class _Calls:
    """Ends calls in the order in which they started."""

    def __init__(self, coordinator, check):
        del coordinator, check
        self.begun = []
        self.most_under_way = 0
        self._waiting = []

    @property
    def under_way(self):
        return len(self._waiting)

    def begin(self, function, args, tag):
        del function
        self.begun.append((args, tag))
        self._waiting.append(tag)
        self.most_under_way = max(self.most_under_way, self.under_way)

    def next_done(self):
        tag = self._waiting.pop(0)
        return types.SimpleNamespace(tag=tag, result=(_result(tag[1]), tag[0]))


class ClusterStepperTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        self.enter_context(mock.patch.object(workers_stepper.calls, "Calls", _Calls))
        self.enter_context(
            mock.patch.object(cluster_stepper.time, "time", return_value=1234.9)
        )
        self.step = types.SimpleNamespace(
            step=tf.Variable(0, dtype=tf.int64), forget_batches=mock.Mock()
        )
        self.feed = mock.Mock(spec=["hear"])

    def stepper(self, run, workers=1, steps_per_loop=3):
        cluster = types.SimpleNamespace(
            coordinator=None,
            check=None,
            spec=types.SimpleNamespace(workers=workers, pipeline=None),
        )
        return cluster_stepper.ClusterStepper(
            self.step, cluster, self.feed, run, steps_per_loop
        )

    def take_all(self, stepper, run, plan):
        taken = []
        while run.progress.step < plan.stop:
            taken.append(stepper.take(run, plan))
            run.progress.step += int(taken[-1].result.steps)
            self.step.step.assign(run.progress.step)
        return taken

    def test_ranges_end_with_the_plan_and_with_the_epoch(self):
        run = _run(step=2, batch=4, steps_per_epoch=5)
        run.progress.begun = {"epoch": 1, "shift": -3, "order": [7, 30]}
        stepper = self.stepper(run)
        plan = stepper_lib.Plan(lambda step: (step // 3 + 1) * 3, 10)
        taken = self.take_all(stepper, run, plan)
        # Step 2 is batch 4, the last one of the first epoch.
        whole = [0, 0, -1]
        expected = [
            ((0, 4, 5, whole, 4, 1234), (4, 1)),
            ((1, 0, 3, [-3, 7, 30], 5, 1234), (5, 3)),
            ((1, 3, 5, [-3, 7, 30], 8, 1234), (8, 2)),
            ((2, 0, 1, whole, 10, 1234), (10, 1)),
            ((2, 1, 2, whole, 11, 1234), (11, 1)),
        ]
        self.assertEqual(stepper._calls.begun, expected)
        self.assertEqual([(t.batch, t.asked) for t in taken], [t for _, t in expected])
        # The counts of each call are received.
        heard = [mock.call("train", batch) for _, (batch, _) in expected]
        self.assertEqual(self.feed.hear.mock_calls, heard)
        self.assertTrue(stepper.is_quiet)

    def test_each_worker_has_two_calls_and_the_stop_is_not_passed(self):
        for workers in (1, 3):
            run = _run(steps_per_epoch=1000)
            stepper = self.stepper(run, workers=workers)
            plan = _plan(1, stop=20)
            stepper.take(run, plan)
            self.assertLen(stepper._calls.begun, 2 * workers)
            self.assertFalse(stepper.is_quiet)
            self.assertLen(stepper.finish(), 2 * workers - 1)
            self.assertTrue(stepper.is_quiet)
            self.assertEqual(stepper.finish(), [])
            self.assertEqual(stepper.maintain_every, 16 * workers * 3)

    def test_where_an_epoch_is_not_known_each_batch_is_one(self):
        run = _run()
        stepper = self.stepper(run)
        stepper.take(run, _plan(3, stop=2))
        whole = [0, 0, -1]
        self.assertEqual(
            stepper._calls.begun,
            [((0, 0, 1, whole, 0, 1234), (0, 1)), ((1, 0, 1, whole, 1, 1234), (1, 1))],
        )

    def test_time_counts_from_one_result_to_the_next(self):
        run = _run(steps_per_epoch=1000)
        stepper = self.stepper(run)
        with mock.patch.object(
            cluster_stepper.time, "perf_counter", side_effect=[10.0, 12.0, 17.0]
        ):
            first = stepper.take(run, _plan(1, stop=2))
            (second,) = stepper.finish()
        self.assertEqual((first.seconds, second.seconds), (2.0, 5.0))

    def test_the_step_counter_is_set_right_when_no_step_runs(self):
        for wrong in (2, 5):  # A worker died before it counted its step.
            run = _run(steps_per_epoch=1000)
            self.step.step.assign(wrong)
            self.stepper(run).take(run, _plan(3, stop=3))
            self.assertEqual(int(self.step.step), 3)

    def test_finished_batches_are_forgotten_now_and_then(self):
        run = _run(step=2, batch=7, steps_per_epoch=1000)
        stepper = self.stepper(run)
        plan = stepper_lib.Plan(lambda step: step + 3, 95)
        self.take_all(stepper, run, plan)
        # 48 steps a call of `maintain`, but not before the next rest.
        self.step.forget_batches.assert_called_once_with(100)

    def test_steps_that_are_under_way_stay_counted(self):
        run = _run(steps_per_epoch=1000)
        stepper = self.stepper(run)
        self.step.step.assign(6)
        stepper.take(run, _plan(3, stop=6))
        self.assertFalse(stepper.is_quiet)
        run.progress.step = 3
        stepper.take(run, _plan(3, stop=6))
        self.assertEqual(int(self.step.step), 6)
