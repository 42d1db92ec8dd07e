"""Tests of the actions that run between steps."""

from unittest import mock

from monolith_tf import testing
from monolith_tf.training import actions
from monolith_tf.training import due
from monolith_tf.training import judges
from monolith_tf.training import run as run_lib
from tests.training import fakes


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
        class Mine(actions.EverySteps, judges.Judge):
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
        both = [judges.Judge(), judges.Judge()]
        for number, judge in enumerate(both):
            judge.judge = lambda run, metrics, n=number: judged.append((n, metrics))
        run.progress.step = 4
        with self.assertLogs("absl", "INFO") as logs:
            actions.Evaluate(4, both).act(run)
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
        with mock.patch.object(due.time, "monotonic") as clock:
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
