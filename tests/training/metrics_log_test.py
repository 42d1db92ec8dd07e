"""Tests of `metrics.jsonl`."""

import math
import pathlib

import numpy as np

from monolith_tf import testing
from monolith_tf.training import metrics_log


class MetricsLogTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        self.path = pathlib.Path(self.get_temp_dir()) / self.id() / "metrics.jsonl"
        self.log = metrics_log.MetricsLog(self.path)

    def test_lines_are_read_back(self):
        self.log.append("train", 10, {"loss": 0.5})
        self.log.append("eval", 10, {"income/auc": 0.9})
        self.assertEqual(
            self.log.read(),
            [
                {"phase": "train", "step": 10, "loss": 0.5},
                {"phase": "eval", "step": 10, "income/auc": 0.9},
            ],
        )

    def test_what_is_not_finite_is_null(self):
        self.log.append("train", 1, {"loss": math.nan, "norm": math.inf})
        self.assertEqual(
            self.log.read(), [{"phase": "train", "step": 1, "loss": None, "norm": None}]
        )

    def test_cut_back_drops_later_steps(self):
        for step in (10, 20, 30):
            self.log.append("train", step, {})
        self.log.cut_back(20)
        self.assertEqual([record["step"] for record in self.log.read()], [10, 20])

    def test_a_line_cut_short_is_left_out(self):
        self.log.append("train", 10, {})
        with self.path.open("a") as file:
            file.write('{"phase": "tr')
        self.assertLen(self.log.read(), 1)
        self.log.cut_back(10)
        self.log.append("train", 20, {})
        self.assertEqual([record["step"] for record in self.log.read()], [10, 20])

    def test_other_values_stay_what_they_are(self):
        values = {"why": "x", "done": True, "rows": 1 << 60, "none": None}
        self.log.append("train", 1, {**values, "loss": np.float32(0.5)})
        (found,) = self.log.read()
        self.assertEqual(found, {"phase": "train", "step": 1, **values, "loss": 0.5})

    def test_where_there_is_no_file_there_is_nothing(self):
        self.assertEqual(self.log.read(), [])
        self.log.cut_back(3)
        self.assertFalse(self.path.exists())
