import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing


class MergeTensorListTest(testing.TestCase):
    @testing.golden_cases(__file__, "merge_tensor_list")
    def test_golden(self, case):
        (tensors,), _ = case.inputs()
        merged = layers.merge_tensor_list(tensors, **case.config)
        traced = tf.function(
            lambda t: layers.merge_tensor_list(t, **case.config),
            input_signature=[tf.nest.map_structure(_unknown_batch, tensors)],
        )
        expected = case.data["expected"]
        for found in (merged, traced(tensors)):
            as_list = case.data["expected_structure"] == "list"
            self.assertEqual(isinstance(found, list), as_list)
            self.assertEqual(len(found), len(expected))
            for one, value in zip(found, expected, strict=True):
                self.assertAllClose(one, value, **case.tolerance)
        self.golden_passed.append(f"{case.file}/{case.name}")

    @parameterized.parameters(0, 1, 3)
    def test_shapes(self, batch):
        x = tf.zeros([batch, 4, 2])
        self.assertEqual(layers.merge_tensor_list(x).shape, (batch, 8))
        self.assertEqual(layers.merge_tensor_list(x, "stack").shape, (batch, 4, 2))
        parts = layers.merge_tensor_list(x, layers.MergeType.NONE)
        self.assertEqual([p.shape for p in parts], [(batch, 2)] * 4)
        flat = tf.zeros([batch, 8])
        stacked = layers.merge_tensor_list(flat, "stack", num_feature=4)
        self.assertEqual(stacked.shape, (batch, 4, 2))
        for merge_type in ("concat", "stack"):
            self.assertIs(layers.merge_tensor_list(flat, merge_type), flat)

    def test_widths_may_differ_where_nothing_is_stacked(self):
        parts = [tf.zeros([3, 2]), tf.ones([3, 1])]
        self.assertAllEqual(layers.merge_tensor_list(parts), [[0.0, 0.0, 1.0]] * 3)
        joined = layers.merge_tensor_list(parts, None)
        self.assertIsNot(joined, parts)
        self.assertLen(parts, 2)
        kept = layers.merge_tensor_list(parts, keep_list=True)
        self.assertIsInstance(kept, list)
        self.assertLen(kept, 1)

    def test_variables_and_another_axis(self):
        variable = tf.Variable([[[1.0], [2.0]]])
        self.assertAllEqual(layers.merge_tensor_list(variable), [[1.0, 2.0]])
        tensors = [tf.ones([2, 3]), tf.zeros([2, 3])]
        self.assertEqual(layers.merge_tensor_list(tensors, axis=0).shape, (4, 3))

    def test_rejects(self):
        with self.assertRaisesRegex(ValueError, r"or None\. .*merge_type='sum'\."):
            layers.merge_tensor_list(tf.ones([1, 2]), "sum")
        with self.assertRaisesRegex(ValueError, r"at least one.*tensor_list=\[\]\."):
            layers.merge_tensor_list([])
        with self.assertRaisesRegex(ValueError, r"rank 2 or 3.*shape=\(1,\)\."):
            layers.merge_tensor_list([tf.ones([1])])
        with self.assertRaisesRegex(ValueError, r"num_feature=3, width=4\."):
            layers.merge_tensor_list(tf.ones([1, 4]), "stack", num_feature=3)

    def test_rejects_an_unknown_number_of_features(self):
        @tf.function(input_signature=[tf.TensorSpec([None, None, 2])])
        def merge(x):
            return layers.merge_tensor_list(x)

        with self.assertRaisesRegex(ValueError, "known features and dim"):
            merge(tf.ones([1, 2, 2]))


def _unknown_batch(tensor):
    return tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)
