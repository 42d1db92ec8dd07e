"""Tests of the log of skipped and changed data."""

from absl import logging

from monolith_tf import testing
from monolith_tf.training import data_log
from tests.training import fakes


class DataLogTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        self.run_ = fakes.run()
        self.counts = {}
        self.log = data_log.DataLog(4, lambda: self.counts)

    def line_at(self, step):
        """Returns the log line of a step, or None."""
        self.run_.progress.step = step
        with self.assertLogs("absl", "INFO") as captured:
            self.log.act(self.run_)
            logging.info("end")  # `assertLogs` wants one line at least.
        found = [line for line in captured.output if "data | " in line]
        return found[0].partition("data | ")[2] if found else None

    def records(self):
        return self.run_.recorder.of("data")

    def test_nothing_is_written_where_nothing_was_left_out(self):
        self.counts = {"train/bad_rows": 0}
        self.log.begin(self.run_)
        self.assertIsNone(self.line_at(4))
        self.assertEmpty(self.records())

    def test_the_line_has_what_moved_and_the_record_all_counts(self):
        self.log.begin(self.run_)
        self.counts = {"train/bad_rows": 3, "eval/bad_rows": 0}
        self.assertEqual(self.line_at(4), "step: 4 | train/bad_rows: 3")
        self.counts = {"train/bad_rows": 3, "eval/bad_rows": 2}
        self.assertEqual(self.line_at(8), "step: 8 | eval/bad_rows: 2")
        self.assertIsNone(self.line_at(12))
        self.assertEqual(
            self.records(),
            [
                (4, {"train/bad_rows": 3, "eval/bad_rows": 0}),
                (8, {"train/bad_rows": 3, "eval/bad_rows": 2}),
            ],
        )

    def test_clipped_values_count_and_those_before_a_resume_have_been_said(self):
        self.run_.progress.clipped = {"age": 5}
        self.log.begin(self.run_)
        self.assertIsNone(self.line_at(4))
        self.run_.progress.clipped = {"age": 7}
        self.assertEqual(self.line_at(8), "step: 8 | train/clipped/age: 7")
        self.assertEqual(self.records(), [(8, {"train/clipped/age": 7})])

    def test_it_keeps_nobody_waiting_and_writes_at_the_end_too(self):
        self.assertFalse(self.log.needs_quiet)
        self.assertTrue(self.log.is_quick)
        self.log.begin(self.run_)
        self.counts = {"train/bad_rows": 1}
        self.run_.progress.step = 3
        self.log.end(self.run_)
        self.assertEqual(self.records(), [(3, {"train/bad_rows": 1})])
