import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing


class AddBiasTest(testing.TestCase):
    def test_standard_behaviour(self):
        self.run_layer_test(
            layers.AddBias(),
            input_shape=(3, 2, 5),
            output_shape=(3, 2, 5),
            num_weights=1,
        )

    def test_config(self):
        self.run_config_test(
            layers.AddBias,
            {
                "initializer": "ones",
                "regularizer": "l2",
                "bias_mode": "channel",
                "data_format": "channels_first",
            },
        )

    @testing.golden_cases(__file__, "add_bias")
    def test_golden(self, case):
        self.run_golden_case(case, layers.AddBias)

    @parameterized.parameters(2, 3, 4, 5)
    def test_matches_definition(self, rank):
        x = self.rng.normal(size=[2, 3, 4, 5, 6][:rank]).astype("float32")
        full, first, last = (
            self.rng.normal(size=n).astype("float32")
            for n in (x.shape[1:], x.shape[1], x.shape[-1])
        )
        for options, bias, expected in (
            ({"data_format": "channels_first"}, full, x + full),
            ({"bias_mode": "channel"}, last, x + last),
            (
                {"bias_mode": "channel", "data_format": "channels_first"},
                first,
                np.moveaxis(np.moveaxis(x, 1, -1) + first, -1, 1),
            ),
        ):
            layer = layers.AddBias(**options)
            layer.build(x.shape)
            layer.bias.assign(bias)
            self.assertAllClose(layer(x), expected)

    def test_data_format_may_be_given_in_a_call(self):
        x = tf.zeros([1, 2, 2])
        layer = layers.AddBias(bias_mode="channel")
        layer.build(x.shape)
        layer.bias.assign([1.0, 2.0])
        y = layer(x, data_format="channels_first")
        self.assertAllEqual(y, [[[1.0, 1.0], [2.0, 2.0]]])

    def test_rejects_names(self):
        with self.assertRaisesRegex(ValueError, r"full, channel\. .*bias_mode='all'"):
            layers.AddBias(bias_mode="all")
        with self.assertRaisesRegex(ValueError, r"channels_first\. .*format='NCHW'"):
            layers.AddBias(data_format="NCHW")
        with self.assertRaisesRegex(ValueError, r"channels_first\. .*format='NCHW'"):
            layers.AddBias()(tf.ones([1, 2]), data_format="NCHW")

    def test_rejects_input(self):
        with self.assertRaisesRegex(ValueError, r"rank 2 to 5\. .*shape=\(2,\)"):
            layers.AddBias()(tf.ones([2]))
        with self.assertRaisesRegex(ValueError, "known size on axis 1"):
            layers.AddBias().build([None, None, 2])
        with self.assertRaisesRegex(TypeError, r"floating point.*dtype=int32\."):
            layers.AddBias()(tf.ones([1, 2], tf.int32))
