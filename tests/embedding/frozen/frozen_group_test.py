"""Tests of which tables are served together, and of the numbers they can hold."""

import numpy as np

from monolith_tf import testing
from monolith_tf.embedding.frozen import group as group_lib
from monolith_tf.embedding.spec import SliceSpec
from monolith_tf.embedding.spec import TableSpec


class FrozenGroupTest(testing.TestCase):
    def test_each_column_has_the_largest_number_of_its_compressor(self):
        slices = (
            SliceSpec(name="a", dim=2),
            SliceSpec(name="b", dim=1, compressor="fp16"),
            SliceSpec(name="c", dim=2, compressor="int8", int8_range=0.5),
        )
        (group,) = group_lib.frozen_groups([TableSpec(name="t", slot=1, slices=slices)])
        served = group_lib.FrozenGroup(group, exact=False, ranges={})
        self.assertAllEqual(served.largest(), [np.inf, np.inf, 65504, 0.5, 0.5])
        # Half a step of int8 more is still rounded to its range.
        taken = 0.5 * (127 + 0.5) / 127
        self.assertAllClose(
            served.largest_taken(), [np.inf, np.inf, 65504, taken, taken], rtol=1e-6
        )
        exact = group_lib.FrozenGroup(group, exact=True, ranges={})
        self.assertAllEqual(exact.largest(), [np.inf] * 5)

    def test_tables_of_other_int8_ranges_are_kept_apart(self):
        tables = [
            TableSpec(name="a", slot=1, dim=2, compressor="int8", int8_range=0.5),
            TableSpec(name="b", slot=2, dim=2, compressor="int8", int8_range=2.0),
            TableSpec(name="c", slot=3, dim=2, compressor="int8", int8_range=0.5),
            TableSpec(name="d", slot=4, dim=2, int8_range=0.5),
            TableSpec(name="e", slot=5, dim=2, int8_range=2.0),
        ]
        groups = group_lib.frozen_groups(tables)
        names = sorted([t.name for t in group.tables] for group in groups)
        self.assertEqual(names, [["a", "c"], ["b"], ["d", "e"]])
