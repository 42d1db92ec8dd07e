"""Tests of judges: which evaluations are better, and what follows."""

import math

from monolith_tf import testing
from monolith_tf.training import judges
from tests.training import fakes


class _Noting(judges.Watch):
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
        judge = judges.ReduceOnPlateau("loss", rises=False, patience=2, factor=0.5)
        scales = []
        for _ in range(6):
            judge.judge(run, {"loss": 1.0})
            scales.append(float(run.step.rate_scale))
        self.assertEqual(scales, [1.0, 1.0, 0.5, 0.5, 0.25, 0.25])

    def test_rates_stay_while_the_metric_gets_better_by_however_little(self):
        run = fakes.run()
        judge = judges.ReduceOnPlateau("loss", rises=False, patience=1, factor=0.5)
        for value in (1.0, 0.75, 0.7499):
            judge.judge(run, {"loss": value})
        self.assertEqual(float(run.step.rate_scale), 1.0)

    def test_early_stop_waits_its_patience(self):
        run = fakes.run()
        judge = judges.EarlyStop("loss", rises=False, patience=2)
        for value, stops in ((1.0, False), (1.0, False), (1.0, True)):
            judge.judge(run, {"loss": value})
            self.assertEqual(bool(run.progress.stop), stops)

    def test_early_stop_says_what_was_best(self):
        run = fakes.run()
        judge = judges.EarlyStop("auc", rises=True, patience=1)
        judge.judge(run, {"auc": 0.75})
        judge.judge(run, {"auc": 0.5})
        self.assertEqual(
            run.progress.stop,
            "early: `auc` did not improve on 0.75000 in 1 evaluations",
        )

    def test_the_record_of_the_best_says_when_it_was(self):
        run = fakes.run()
        judge = judges.EarlyStop("auc", rises=True, patience=9)
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
        judge = judges.KeepBest("auc", rises=True)
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
        judge = judges.ReduceOnPlateau("loss", rises=False, patience=1, factor=0.5)
        for _ in range(3):
            judge.judge(run, {"loss": 1.0})
        self.assertIsNone(run.step.rate_scale)
