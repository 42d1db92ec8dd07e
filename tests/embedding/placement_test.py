"""Tests of placements."""

from monolith_tf import testing
from monolith_tf.embedding.placement import Placement


class PlacementTest(testing.TestCase):
    def test_rows_stay_on_the_host_by_default(self):
        placement = Placement(num_shards=2)
        self.assertEqual([placement.device(i) for i in range(2)], ["/CPU:0"] * 2)

    def test_names_the_device_of_each_shard(self):
        placement = Placement(
            num_shards=2, devices=("/job:ps/task:0", "/job:ps/task:1")
        )
        self.assertEqual(placement.device(1), "/job:ps/task:1")

    def test_takes_its_arguments_by_name_only(self):
        with self.assertRaisesRegex(TypeError, "positional argument"):
            Placement(2)

    def test_rejects_no_shards(self):
        with self.assertRaisesRegex(ValueError, r"at least 1\. Received: num_shards=0"):
            Placement(num_shards=0)

    def test_rejects_devices_that_do_not_match_the_shards(self):
        with self.assertRaisesRegex(ValueError, "one device per shard. Received"):
            Placement(num_shards=2, devices=("/CPU:0",))
