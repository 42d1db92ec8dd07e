"""Tests of learning-rate schedules against hand-written formulas."""

import math

from monolith_tf import schedules
from monolith_tf import testing


def _rates(steps, **fields):
    spec = schedules.ScheduleSpec(**fields)
    return [float(schedules.rate_at(spec, step)) for step in steps]


class ScheduleTest(testing.TestCase):
    def test_constant_with_warm_up(self):
        rates = _rates([0, 1, 3, 9], learning_rate=0.4, warmup_steps=4)
        self.assertAllClose(rates, [0.1, 0.2, 0.4, 0.4])

    def test_a_plain_number_is_constant(self):
        self.assertAllClose(schedules.rate_at(0.25, 7), 0.25)

    def test_polynomial(self):
        rates = _rates(
            [0, 5, 10, 20],
            name="polynomial",
            learning_rate=1.0,
            end_learning_rate=0.2,
            decay_steps=10,
            power=2.0,
        )
        self.assertAllClose(rates, [1.0, 0.8 * 0.25 + 0.2, 0.2, 0.2])

    def test_exponential_counts_from_the_end_of_warm_up(self):
        rates = _rates(
            [2, 12, 22],
            name="exponential",
            learning_rate=1.0,
            decay_rate=0.5,
            decay_steps=10,
            warmup_steps=2,
        )
        self.assertAllClose(rates, [1.0, 0.5, 0.25])

    def test_cosine(self):
        rates = _rates([0, 5, 10], name="cosine", learning_rate=1.0, decay_steps=10)
        expected = [1.0, (1 + math.cos(math.pi / 2)) / 2, 0.0]
        self.assertAllClose(rates, expected, atol=1e-6)

    def test_piecewise_changes_at_its_boundaries(self):
        rates = _rates(
            [0, 9, 10, 30],
            name="piecewise",
            boundaries=(10, 20),
            values=(3.0, 2.0, 1.0),
        )
        self.assertAllClose(rates, [3.0, 3.0, 2.0, 1.0])

    def test_errors(self):
        for fields, text in (
            (
                {"learning_rate": -1.0},
                "must not be negative. Received: learning_rate=-1",
            ),
            ({"warmup_steps": -1}, "Received: warmup_steps=-1"),
            ({"decay_steps": 0}, "decay_steps=0"),
            (
                {"name": "piecewise", "boundaries": (2, 1), "values": (1, 1, 1)},
                "must increase",
            ),
            ({"name": "piecewise", "boundaries": (2,), "values": (1.0,)}, "one entry"),
        ):
            with self.assertRaisesRegex(ValueError, text):
                schedules.ScheduleSpec(**fields)
