"""Which tables are small enough to be read without a search."""

from unittest import mock

from absl.testing import parameterized

from monolith_tf import testing
from monolith_tf.embedding.frozen import survey as frozen_survey


def _ranges(integers=None, **tables):
    found = {
        name: frozen_survey.Counted(rows=rows, dropped=0, end=end)
        for name, (rows, end) in tables.items()
    }
    return frozen_survey.Survey(found, []).ranges(integers or list(tables))


class RangesTest(testing.TestCase):
    @parameterized.parameters(
        (0, 0, True),
        (1, 4096, True),
        (1, 4097, False),
        (1000, 8000, True),
        (1000, 8001, False),
        (3, 2**48, False),
    )
    def test_there_are_few_places_or_some_for_each_row(self, rows, end, is_small):
        self.assertEqual(_ranges(a=(rows, end)), {"a": end} if is_small else {})

    def test_tables_of_other_values_are_left_out(self):
        self.assertEqual(_ranges(["a"], a=(5, 9), b=(5, 9)), {"a": 9})

    def test_all_places_fit_in_a_chunk(self):
        # Each table has one place more than its range.
        with mock.patch.object(frozen_survey, "CHUNK_BYTES", 4 * 59):
            found = _ranges(a=(9, 30), b=(9, 10), c=(9, 17))
            self.assertEqual(found, {"b": 10, "c": 17})
            found = _ranges(a=(9, 30), b=(9, 10), c=(9, 17), d=(0, 0))
            self.assertEqual(found, {"d": 0, "b": 10, "c": 17})
            found = _ranges(a=(9, 29), b=(9, 10), c=(9, 17))
            self.assertEqual(found, {"b": 10, "c": 17, "a": 29})

    def test_a_chunk_is_not_taken_by_tables_without_places(self):
        with mock.patch.object(frozen_survey, "CHUNK_BYTES", 4 * 15_000):
            found = _ranges(a=(1, 5000), b=(2000, 14_000))
            self.assertEqual(found, {"b": 14_000})
