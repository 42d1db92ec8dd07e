"""Tests of the actions that run between steps."""

import math

from absl import logging

from monolith_tf import testing
from monolith_tf.training import actions
from monolith_tf.training import table_log
from tests.training import fakes


class _Noting(actions.Watch):
    def __init__(self, **kwargs):
        super().__init__("auc", **kwargs)
        self.found = []

    def better(self, run, value):
        self.found.append(("better", value))

    def not_better(self, run, record):
        self.found.append(("waited", record["waited"]))


class WatchTest(testing.TestCase):
    def found(self, values, **kwargs):
        run, watch = fakes.run(), _Noting(**kwargs)
        for value in values:
            watch.judge(run, {"auc": value})
        return watch.found

    def test_the_same_value_again_is_not_better(self):
        found = self.found([0.5, 0.5, 0.75], rises=True)
        self.assertEqual(found, [("better", 0.5), ("waited", 1), ("better", 0.75)])
        found = self.found([0.5, 0.5, 0.25], rises=False)
        self.assertEqual(found, [("better", 0.5), ("waited", 1), ("better", 0.25)])

    def test_a_gain_of_just_min_delta_is_not_better(self):
        found = self.found([0.5, 0.75, 1.0], rises=True, min_delta=0.25)
        self.assertEqual(found, [("better", 0.5), ("waited", 1), ("better", 1.0)])

    def test_waiting_counts_from_the_best(self):
        found = self.found([0.5, 0.25, 0.25, 0.75, 0.5], rises=True)
        self.assertEqual([n for _, n in found], [0.5, 1, 2, 0.75, 1])

    def test_a_number_follows_nan(self):
        found = self.found([math.nan, 0.5], rises=True)
        self.assertEqual(found[-1], ("better", 0.5))

    def test_an_unknown_metric_is_an_error(self):
        with self.assertRaisesRegex(ValueError, "no metric `auc`.*Received: loss"):
            _Noting(rises=True).judge(fakes.run(), {"loss": 1.0})


class JudgeTest(testing.TestCase):
    def test_rates_fall_every_patience_evaluations(self):
        run = fakes.run()
        judge = actions.ReduceOnPlateau("loss", rises=False, patience=2, factor=0.5)
        scales = []
        for _ in range(6):
            judge.judge(run, {"loss": 1.0})
            scales.append(float(run.step.rate_scale))
        self.assertEqual(scales, [1.0, 1.0, 0.5, 0.5, 0.25, 0.25])

    def test_early_stop_waits_its_patience(self):
        run = fakes.run()
        judge = actions.EarlyStop("loss", rises=False, patience=2)
        for value, stops in ((1.0, False), (1.0, False), (1.0, True)):
            judge.judge(run, {"loss": value})
            self.assertEqual(bool(run.progress.stop), stops)


class EveryStepsTest(testing.TestCase):
    def test_the_next_step_is_the_next_multiple(self):
        action = actions.Evaluate(4)
        steps = [action.next_step(step) for step in (0, 3, 4, 5)]
        self.assertEqual(steps, [4, 4, 8, 8])

    def test_acts_once_at_a_step(self):
        run = fakes.run()
        action = actions.Evaluate(4)
        action.begin(run)
        run.progress.step = 4
        action.act(run)
        action.act(run)
        action.end(run)
        self.assertLen(run.recorder.records, 1)

    def test_does_not_act_at_the_step_where_a_run_begins(self):
        run = fakes.run()
        run.progress.step = 4
        action = actions.Evaluate(4)
        action.begin(run)
        action.end(run)
        self.assertEmpty(run.recorder.records)

    def test_an_interval_below_one_is_refused(self):
        with self.assertRaisesRegex(ValueError, "at least 1. Received: every=0"):
            actions.Evaluate(0)


class SaveCheckpointTest(testing.TestCase):
    def test_the_nearest_of_all_intervals_is_next(self):
        action = actions.SaveCheckpoint([4, 6], None)
        steps = [action.next_step(step) for step in (0, 4, 6, 11, 12)]
        self.assertEqual(steps, [4, 6, 8, 12, 16])
        self.assertIsNone(actions.SaveCheckpoint([], None).next_step(3))

    def test_seconds_make_it_due_at_the_next_step(self):
        action = actions.SaveCheckpoint([], 0.0)
        action.begin(fakes.run())
        self.assertEqual(action.next_step(3), 4)


class TableLogTest(testing.TestCase):
    def lines(self, **counters):
        run = fakes.run()
        log = table_log.TableLog(4)
        log.begin(run)
        run.step.network.store.counters.update(counters)
        run.progress.step = 4
        with self.assertLogs("absl", "INFO") as captured:
            log.act(run)
            logging.info("end")  # `assertLogs` wants one line at least.
        return run, [line for line in captured.output if "tables" in line]

    def test_every_counter_of_every_table_is_recorded(self):
        run, lines = self.lines(rows=3, inserted=5, bytes=240)
        ((step, values),) = run.recorder.of("tables")
        self.assertEqual(step, 4)
        self.assertEqual(values["user/rows"], 3)
        self.assertEqual(values["user/bytes"], 240)
        self.assertEqual(set(values), {f"user/{name}" for name in fakes.COUNTERS})
        self.assertEmpty(lines)

    def test_lost_updates_are_a_warning(self):
        _, (line,) = self.lines(overflow=7, dropped=7)
        self.assertIn("`user` lost updates: 7 ids found no room, and 7 grad", line)
        self.assertStartsWith(line, "WARNING")

    def test_what_admission_refused_is_a_line(self):
        _, (line,) = self.lines(refused=4, dropped=4)
        self.assertStartsWith(line, "INFO")
        self.assertIn("refused by admission: 4 | gradients dropped: 4", line)
