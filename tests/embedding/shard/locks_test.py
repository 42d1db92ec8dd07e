"""Tests that objects have locks of their own, which are used again."""

import gc

from monolith_tf import testing
from monolith_tf.embedding.shard import locks

_DEVICE = "/job:locks_test/CPU:0"


class _Owner:
    pass


class LocksTest(testing.TestCase):
    def test_objects_that_are_there_have_unlike_locks(self):
        owners = [_Owner() for _ in range(10)]
        names = {locks.name_of(owner, _DEVICE) for owner in owners}
        self.assertLen(names, len(owners))

    def test_an_object_gets_the_lock_of_one_that_was_freed(self):
        kept, freed = _Owner(), _Owner()
        of_kept = locks.name_of(kept, _DEVICE)
        of_freed = locks.name_of(freed, _DEVICE)
        del freed
        gc.collect()
        elsewhere, next_one, last = _Owner(), _Owner(), _Owner()
        self.assertNotEqual(locks.name_of(elsewhere, f"{_DEVICE}1"), of_freed)
        self.assertEqual(locks.name_of(next_one, _DEVICE), of_freed)
        self.assertNotIn(locks.name_of(last, _DEVICE), [of_kept, of_freed])
