"""Tests of counting ids until they earn a row."""

import tensorflow as tf

from monolith_tf import testing
from monolith_tf.embedding import admission
from monolith_tf.embedding import layout
from monolith_tf.embedding.spec import TableSpec


def _group(**options):
    tables = [
        TableSpec(name="rare", slot=1, dim=2, **options),
        TableSpec(name="open", slot=2, dim=2),
    ]
    (group,) = layout.merge_tables(tables)
    return group


def _ids(*values):
    return tf.constant([(slot << 48) + value for slot, value in values], tf.int64)


def _counts(*values):
    return tf.constant(values, tf.int64)


class ExactAdmissionTest(testing.TestCase):
    def test_admits_at_the_threshold_of_the_table(self):
        exact = admission.make(_group(admit_after=3))
        ids = _ids((1, 7), (1, 8), (2, 7))
        self.assertAllEqual(exact.admit(ids, _counts(1, 3, 1)), [False, True, True])
        self.assertAllEqual(exact.admit(_ids((1, 7)), _counts(1)), [False])
        self.assertAllEqual(exact.admit(_ids((1, 7)), _counts(1)), [True])

    def test_counts_anew_after_admission(self):
        exact = admission.make(_group(admit_after=2))
        exact.admit(_ids((1, 7)), _counts(1))
        exact.admit(_ids((1, 7)), _counts(1))
        self.assertAllEqual(exact.admit(_ids((1, 7)), _counts(1)), [False])

    def test_counts_go_through_export_and_load(self):
        exact = admission.make(_group(admit_after=9))
        exact.admit(_ids((1, 8), (1, 7)), _counts(4, 8))
        ids, counts = exact.export()
        self.assertAllEqual(ids, _ids((1, 7), (1, 8)))
        self.assertAllEqual(counts, [8, 4])
        other = admission.make(_group(admit_after=9))
        other.load(ids, counts)
        self.assertAllEqual(
            other.admit(_ids((1, 7), (1, 8)), _counts(1, 1)), [True, False]
        )
        other.clear()
        self.assertAllEqual(other.admit(_ids((1, 8)), _counts(8)), [False])

    def test_tables_that_admit_at_once_need_none(self):
        self.assertIsNone(admission.make(_group()))
