"""Tests of the counters of tables in logs and records."""

from absl import logging

from monolith_tf import testing
from monolith_tf.training import table_log
from tests.training import fakes


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
