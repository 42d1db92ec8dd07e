"""Tests of the actions that run between steps."""

import math
from unittest import mock

from absl import logging

from monolith_tf import testing
from monolith_tf.training import actions
from monolith_tf.training import run as run_lib
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

    def test_rates_stay_while_the_metric_gets_better_by_however_little(self):
        run = fakes.run()
        judge = actions.ReduceOnPlateau("loss", rises=False, patience=1, factor=0.5)
        for value in (1.0, 0.75, 0.7499):
            judge.judge(run, {"loss": value})
        self.assertEqual(float(run.step.rate_scale), 1.0)

    def test_early_stop_waits_its_patience(self):
        run = fakes.run()
        judge = actions.EarlyStop("loss", rises=False, patience=2)
        for value, stops in ((1.0, False), (1.0, False), (1.0, True)):
            judge.judge(run, {"loss": value})
            self.assertEqual(bool(run.progress.stop), stops)

    def test_early_stop_says_what_was_best(self):
        run = fakes.run()
        judge = actions.EarlyStop("auc", rises=True, patience=1)
        judge.judge(run, {"auc": 0.75})
        judge.judge(run, {"auc": 0.5})
        self.assertEqual(
            run.progress.stop,
            "early: `auc` did not improve on 0.75000 in 1 evaluations",
        )

    def test_the_record_of_the_best_says_when_it_was(self):
        run = fakes.run()
        judge = actions.EarlyStop("auc", rises=True, patience=9)
        for step, value in ((4, 0.5), (8, 0.75), (12, 0.25), (16, 0.5)):
            run.progress.step = step
            judge.judge(run, {"auc": value})
        self.assertEqual(
            run.progress.best,
            {
                "EarlyStop": {
                    "value": 0.75,
                    "step": 8,
                    "waited": 2,
                    "metric": "auc",
                    "rises": True,
                }
            },
        )

    def test_the_best_checkpoint_is_marked_when_it_is_written(self):
        run = fakes.run()
        judge = actions.KeepBest("auc", rises=True)
        for step, value in ((4, 0.5), (8, 0.25), (12, 0.75)):
            run.progress.step = step
            judge.judge(run, {"auc": value})
            run.save_wanted()
        self.assertEqual(run.checkpoints.steps, [4, 12])
        self.assertEqual(
            run.checkpoints.best,
            [("ckpt-00000004", "auc", 0.5), ("ckpt-00000012", "auc", 0.75)],
        )

    def test_without_a_factor_no_rate_falls(self):
        run = fakes.run()
        run.step.rate_scale = None
        judge = actions.ReduceOnPlateau("loss", rises=False, patience=1, factor=0.5)
        for _ in range(3):
            judge.judge(run, {"loss": 1.0})
        self.assertIsNone(run.step.rate_scale)


class ActionTest(testing.TestCase):
    def test_an_action_does_nothing_of_itself(self):
        action, run = actions.Action(), fakes.run()
        self.assertTrue(action.needs_quiet)
        self.assertFalse(action.is_quick)
        action.begin(run)
        self.assertIsNone(action.next_step(3))
        action.act(run)
        action.end(run)
        self.assertIsNone(run.saved)

    def test_what_lacks_its_part_is_named(self):
        class Mine(actions.EverySteps, actions.Judge):
            pass

        run = fakes.run()
        with self.assertRaisesRegex(NotImplementedError, "`Mine` defines no `work`"):
            Mine(4).act(run)
        with self.assertRaisesRegex(NotImplementedError, "`Mine` defines no `judge`"):
            Mine(4).judge(run, {})


class LogTest(testing.TestCase):
    def log(self, **window):
        run, seen = fakes.run(), []
        run.progress.step, run.progress.examples = 8, 80
        run.window = run_lib.Window(**window)
        log = actions.Log(4, lambda run, values: seen.append(values))
        self.assertFalse(log.needs_quiet)
        self.assertTrue(log.is_quick)
        log.act(run)
        return run, seen

    def test_a_line_is_the_mean_of_the_window_and_begins_another(self):
        values = {"steps": 4, "examples": 40, "seconds": 3.0, "loss_sum": 6.0}
        with self.assertLogs("absl", "INFO") as logs:
            run, seen = self.log(**values, norm=2.5, auxiliary={"half": 3.0})
        expected = {
            "loss": 1.5,
            "examples_per_sec": 13.3,
            "examples": 80,
            "loss/half": 0.75,
            "gradient_norm": 2.5,
        }
        self.assertEqual(seen, [expected])
        self.assertEqual(run.recorder.records, [("train", 8, expected)])
        self.assertIn("step: 8 | loss: 1.5000 | examples/sec: 13", logs.output[0])
        self.assertEqual(run.window, run_lib.Window())

    def test_without_clipping_there_is_no_norm_and_no_time_is_no_error(self):
        _, (values,) = self.log(steps=1, examples=10, loss_sum=0.5)
        self.assertEqual(
            values, {"loss": 0.5, "examples_per_sec": 1e10, "examples": 80}
        )

    def test_without_steps_there_is_no_line(self):
        run, seen = self.log()
        self.assertEqual((run.recorder.records, seen), ([], []))


class EvaluateTest(testing.TestCase):
    def test_metrics_are_kept_recorded_and_judged_in_order(self):
        asked, judged = [], []
        run = fakes.run(evaluate=lambda split: asked.append(split) or {"auc": 0.75})
        judges = [actions.Judge(), actions.Judge()]
        for number, judge in enumerate(judges):
            judge.judge = lambda run, metrics, n=number: judged.append((n, metrics))
        run.progress.step = 4
        with self.assertLogs("absl", "INFO") as logs:
            actions.Evaluate(4, judges).act(run)
        self.assertEqual(asked, ["eval"])
        self.assertEqual(run.progress.metrics, {"auc": 0.75})
        self.assertEqual(run.recorder.records, [("eval", 4, {"auc": 0.75})])
        self.assertEqual(judged, [(0, {"auc": 0.75}), (1, {"auc": 0.75})])
        self.assertIn("eval | step: 4 | auc: 0.75000", logs.output[0])
        self.assertTrue(actions.Evaluate(4, is_quick=True).is_quick)
        self.assertFalse(actions.Evaluate(4).is_quick)


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

    def test_an_action_that_begins_in_its_own_way_acts_at_every_step(self):
        class Own(actions.Evaluate):
            def begin(self, run):
                pass

        run = fakes.run()
        action = Own(1)
        for step in (1, 2, 3):
            run.progress.step = step
            action.act(run)
        self.assertEqual([s for s, _ in run.recorder.of("eval")], [1, 2, 3])

    def test_does_not_act_at_the_step_where_a_run_begins(self):
        run = fakes.run()
        run.progress.step = 4
        action = actions.Evaluate(4)
        action.begin(run)
        action.end(run)
        self.assertEmpty(run.recorder.records)

    def test_what_an_interruption_left_out_is_done_at_the_step_where_it_begins(self):
        run = fakes.run()
        run.progress.step, run.progress.overdue = 4, ["Evaluate"]
        action = actions.Evaluate(4)
        action.begin(run)
        action.act(run)
        self.assertLen(run.recorder.records, 1)

    def test_the_end_of_an_interrupted_run_is_no_end(self):
        for stop, count in (("interrupted", 0), ("early: enough", 1), ("", 1)):
            run = fakes.run()
            action = actions.Evaluate(4)
            action.begin(run)
            run.progress.step, run.progress.stop = 7, stop
            action.end(run)
            self.assertLen(run.recorder.records, count, stop)

    def test_an_interval_of_one_is_every_step(self):
        self.assertEqual(actions.Evaluate(1).next_step(3), 4)

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

    def test_seconds_count_from_the_last_checkpoint(self):
        run = fakes.run()
        action = actions.SaveCheckpoint([100], 30.0)
        with mock.patch.object(actions.time, "monotonic") as clock:
            clock.return_value = 1000.0
            action.begin(run)
            for now, step in ((1029.9, 100), (1030.0, 4), (1090.0, 4)):
                clock.return_value = now
                self.assertEqual(action.next_step(3), step, now)
            run.progress.step = 4
            action.act(run)
            clock.return_value = 1119.9
            self.assertEqual(action.next_step(4), 100)
            clock.return_value = 1120.0
            self.assertEqual(action.next_step(4), 5)

    def test_a_step_is_asked_for_once_and_the_end_always(self):
        run = fakes.run()
        action = actions.SaveCheckpoint([4], None)
        run.progress.step = 4
        action.begin(run)
        action.act(run)
        run.save_wanted()
        self.assertEqual(run.checkpoints.steps, [])
        run.progress.step = 5
        action.act(run)
        run.save_wanted()
        self.assertEqual(run.checkpoints.steps, [5])
        run.progress.metrics = {"loss": 1.0}
        action.act(run)
        run.save_wanted()
        self.assertEqual(run.checkpoints.steps, [5])
        action.end(run)
        run.save_wanted()
        self.assertEqual(run.checkpoints.steps, [5, 5])


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
        self.assertIn("`user` lost updates: 7 ids had no space, and 7 grad", line)
        self.assertStartsWith(line, "WARNING")

    def test_what_admission_refused_is_a_line(self):
        _, (line,) = self.lines(refused=4, dropped=4)
        self.assertStartsWith(line, "INFO")
        self.assertIn("refused by admission: 4 | gradients dropped: 4", line)

    def test_more_dropped_than_refused_is_a_warning_too(self):
        _, lines = self.lines(refused=4, dropped=5)
        self.assertEqual([line.split(":")[0] for line in lines], ["INFO", "WARNING"])
        self.assertIn("0 ids had no space, and 1 gradients", lines[1])
        _, lines = self.lines(overflow=1)
        self.assertIn("1 ids had no space, and 0 gradients", lines[0])
        _, lines = self.lines(refused=5, dropped=4)
        self.assertLen(lines, 1)
        _, lines = self.lines(overflow=1, refused=5, dropped=4)
        self.assertIn("1 ids had no space, and 0 gradients", lines[1])

    def test_what_was_said_is_not_said_again(self):
        run = fakes.run()
        log = table_log.TableLog(4)
        run.step.network.store.counters.update(overflow=7, dropped=7)
        log.begin(run)
        run.progress.step = 4
        with self.assertNoLogs("absl", "INFO"):
            log.act(run)
        run.step.network.store.counters.update(overflow=9)
        run.progress.step = 8
        with self.assertLogs("absl", "WARNING") as logs:
            log.act(run)
        self.assertIn("2 ids had no space", logs.output[0])
        run.progress.step = 12
        with self.assertNoLogs("absl", "INFO"):
            log.act(run)
