import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing
from monolith_tf.testing import summaries


class iRazorTest(testing.TestCase):
    def test_standard_behaviour(self):
        self.run_layer_test(
            layers.iRazor([0, 2, 5], t=0.5, feature_weight=[1.0, 2.0, 3.0]),
            input_shape=(4, 3, 5),
            output_shape=(4, 15),
            num_weights=1,
        )

    def test_config(self):
        self.run_config_test(
            layers.iRazor,
            {
                "nas_space": (0, 1, 3),
                "t": 0.5,
                "initializer": "he_normal",
                "regularizer": "l2",
                "feature_weight": [0.1, 2.0],
                "out_type": "stack",
                "keep_list": True,
            },
        )

    @parameterized.parameters(list, np.array, tf.constant)
    def test_feature_weight_is_kept_as_plain_numbers(self, kind):
        layer = layers.iRazor([0, 1], feature_weight=kind([0.5, 2.0]))
        self.assertEqual(layer.get_config()["feature_weight"], [0.5, 2.0])

    @testing.golden_cases(__file__, "irazor")
    def test_golden(self, case):
        blocks = {"rigid_masks": lambda layer, inputs: layer.region_masks}
        self.run_golden_case(case, layers.iRazor, blocks=blocks)

    def test_matches_definition(self):
        x = self.rng.normal(size=(5, 2, 4)).astype("float32")
        logits = self.rng.normal(size=(2, 3)).astype("float32")
        layer = layers.iRazor([0, 1, 4], t=0.5, feature_weight=[3.0, 5.0])
        layer.build([None, 2, 4])
        layer.set_weights([logits])
        p = np.exp(logits / 0.5)
        p /= p.sum(1, keepdims=True)
        mask = p[:, [1, 2, 2, 2]]  # the region of every column
        self.assertAllClose(layer(x), (x * mask).reshape(5, 8))
        self.assertAllClose(layer.losses, [np.sum(mask * [[3.0], [5.0]])])

    def test_adds_no_loss_without_feature_weight(self):
        layer = layers.iRazor([0, 1])
        layer(np.ones([2, 3, 1]))
        self.assertEmpty(layer.losses)

    def test_loss_is_the_same_for_an_empty_batch(self):
        layer = layers.iRazor([0, 2], t=1.0, initializer="zeros", feature_weight=[3.0])
        layer(np.ones([0, 1, 2]))
        self.assertAllClose(layer.losses, [3.0 * 2 * 0.5])

    def test_selected_columns(self):
        layer = layers.iRazor([0, 1, 3], t=1.0)
        layer.build([None, 4, 3])
        p = np.array(
            [[0.04, 0.92, 0.04], [0.95, 0.03, 0.02], [0.3, 0.2, 0.5], [0.3, 0.3, 0.4]]
        )
        layer.set_weights([np.log(p)])
        # Up to 0.75: region 1; region 0; regions 2 and 0; regions 2, 0 and 1.
        self.assertEqual(layer.selected(0.75), {0: [0], 2: [1, 2], 3: [0, 1, 2]})
        self.assertEqual(layer.selected_sizes(0.75), [1, 0, 2, 3])
        self.assertEqual(layer.selected_sizes(0.65), [1, 0, 2, 2])
        # By default up to 0.9, for which the third feature needs its last region.
        self.assertEqual(layer.selected()[2], [0, 1, 2])
        self.assertEqual(layer.selected_sizes(), [1, 0, 3, 3])
        self.assertEqual(layer.selected_sizes(1.0), [3, 3, 3, 3])

    def test_shows_what_it_has_found(self):
        layer = layers.iRazor([0, 1, 3], t=1.0, name="razor")
        layer.build([None, 2, 3])
        p = np.array([[0.05, 0.92, 0.03], [0.96, 0.02, 0.02]])
        layer.set_weights([np.log(p)])
        self.assertEqual(layer.widths, [3, 3])
        self.assertEqual(layer.summary_line(), "0: 1/3 | 1: 0/3")
        folder = self.get_temp_dir()
        with tf.summary.create_file_writer(folder).as_default():
            layer.write_summaries(step=7)
        found = summaries.read(folder)
        self.assertEqual(found["razor/0/selected_size", 7], 1)
        self.assertEqual(found["razor/1/selected_size", 7], 0)
        # Of a histogram's buckets (left, right, count), each choice is in one.
        counts = found["razor/0/probabilities", 7][:, 2]
        self.assertEqual(counts.sum(), 3)

    @parameterized.parameters(
        ([1, 3],), ([0, 2, 2],), ([0, 3, 2],), ([0],), ([0, 1.5],)
    )
    def test_rejects_a_space_that_does_not_rise_from_zero(self, space):
        with self.assertRaisesRegex(
            ValueError, "`nas_space` must be .* increasing from 0"
        ):
            layers.iRazor(space)

    @parameterized.parameters(0.0, float("nan"))
    def test_rejects_a_temperature_not_above_zero(self, t):
        with self.assertRaisesRegex(ValueError, rf"`t` must be above 0.*t={t}\."):
            layers.iRazor([0, 1], t=t)

    def test_rejects_feature_weight_of_another_rank(self):
        with self.assertRaisesRegex(ValueError, r"a list of numbers\. .*shape=\(\)\."):
            layers.iRazor([0, 1], feature_weight=2.0)

    def test_rejects_feature_weight_of_another_length(self):
        layer = layers.iRazor([0, 1], feature_weight=[1.0])
        with self.assertRaisesRegex(
            ValueError, r"per feature\. .*1 numbers for 2 feat"
        ):
            layer.build([None, 2, 1])

    def test_rejects_another_width(self):
        with self.assertRaisesRegex(ValueError, r"must end with .*\[0, 2\], width=3\."):
            layers.iRazor([0, 2])(np.ones([2, 4, 3]))

    @parameterized.parameters(0.0, 1.5)
    def test_rejects_a_threshold_out_of_range(self, threshold):
        layer = layers.iRazor([0, 1])
        with self.assertRaisesRegex(
            ValueError, rf"at most 1\. .*threshold={threshold}"
        ):
            layer.selected(threshold)

    def test_rejects_an_unknown_output_type(self):
        with self.assertRaisesRegex(ValueError, r"`out_type` must be .*='sum'\."):
            layers.iRazor([0, 1], out_type="sum")

    def test_rejects_integer_input(self):
        with self.assertRaisesRegex(TypeError, r"floating point.*dtype=int32\."):
            layers.iRazor([0, 3])(np.ones([2, 4, 3], "int32"))

    def test_rejects_unknown_features(self):
        with self.assertRaisesRegex(ValueError, "known size on axis 1"):
            layers.iRazor([0, 3]).build([None, None, 3])

    def test_rejects_another_rank(self):
        with self.assertRaisesRegex(ValueError, "expected ndim=3, found ndim=2"):
            layers.iRazor([0, 3])(np.ones([2, 3]))
