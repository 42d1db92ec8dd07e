"""Tests of when rows expire and which rows a full table drops."""

import numpy as np

from monolith_tf import testing
from monolith_tf.embedding.lookup import layout
from monolith_tf.embedding.shard import expiry
from monolith_tf.embedding.spec import TableSpec

_DAY = 86_400


def _ages(**tables):
    specs = [
        TableSpec(name=name, slot=slot, dim=2, **options)
        for slot, (name, options) in enumerate(tables.items())
    ]
    (group,) = layout.merge_tables(specs)
    return expiry.Ages(group)


class AgesTest(testing.TestCase):
    def test_rows_expire_by_steps_or_days_of_their_own_table(self):
        ages = _ages(
            steps={"expire_after_steps": 10},
            days={"expire_after_days": 0.5},
            both={"expire_after_steps": 10, "expire_after_days": 0.5},
            neither={},
        )
        # Each table with a fresh row, one old by steps, one old by days.
        ids = np.arange(4).repeat(3) << 48
        stamps = {
            "step": np.tile([100, 90, 100], 4),
            "secs": np.tile([_DAY, _DAY, _DAY // 2], 4),
        }
        expired = ages.expired(ids, stamps, {"step": 100, "secs": _DAY})
        self.assertAllEqual(
            expired.reshape(4, 3),
            [
                [False, True, False],
                [False, False, True],
                [False, True, True],
                [False, False, False],
            ],
        )

    def test_a_row_lives_until_its_age_is_reached(self):
        ages = _ages(steps={"expire_after_steps": 10})
        stamps = {"step": np.array([91])}
        self.assertFalse(ages.expired(np.array([0]), stamps, {"step": 100})[0])
        self.assertTrue(ages.expired(np.array([0]), stamps, {"step": 101})[0])

    def test_shows_the_next_expiry(self):
        ages = _ages(steps={"expire_after_steps": 10}, neither={})
        ids = np.array([0, 0, 1 << 48])
        self.assertEqual(
            ages.next_expiry(ids, {"step": np.array([7, 5, 1])}), {"step": 15.0}
        )
        self.assertEqual(ages.shortest({"step": 100}), {"step": 110.0})
        self.assertEqual(ages.never_looked(), {"step": -np.inf})

    def test_tables_without_ages_ask_for_no_look(self):
        self.assertEqual(_ages(neither={}).never_looked(), {})


class CheckLimitTest(testing.TestCase):
    def test_counts_what_must_go(self):
        def table(dim):
            return TableSpec(
                name="t", dim=dim, max_rows=3, max_bytes=80, when_full="evict_oldest"
            )

        for num_rows in (0, 2, 3):
            self.assertEqual(expiry.check_limit(table(2), num_rows), 0)
        # Rows of 16 bytes, and of 40.
        self.assertEqual(expiry.check_limit(table(2), 5), 2)
        self.assertEqual(expiry.check_limit(table(5), 5), 3)

    def test_no_limit_lets_every_row_stay(self):
        self.assertEqual(expiry.check_limit(TableSpec(name="t", dim=2), 10**9), 0)

    def test_error_names_table_ids_bytes_and_what_to_set(self):
        message = (
            "Table `t` is full: it holds 5 ids, 80 bytes .* max_rows=3 allows 3 ids. "
            "Raise `max_rows`, set `when_full`"
        )
        with self.assertRaisesRegex(expiry.TableFullError, message):
            expiry.check_limit(TableSpec(name="t", dim=2, max_rows=3), 5)
        message = "max_bytes=40 allows 2 ids. Raise `max_bytes`"
        with self.assertRaisesRegex(expiry.TableFullError, message):
            expiry.check_limit(TableSpec(name="t", dim=2, max_bytes=40), 5)


class OldestTest(testing.TestCase):
    def test_takes_the_oldest_and_of_equals_the_smallest_ids(self):
        ids = np.array([5, 4, 3, 2, 1])
        steps = np.array([9, 7, 7, 8, 7])
        self.assertAllEqual(expiry.oldest(ids, steps, 4), [1, 3, 4, 2])
