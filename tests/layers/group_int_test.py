import numpy as np
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing

_PAIR = (([(4, 5), (4, 5)], [(4, 5), (4, 5), (4, 5)]),)


class GroupIntTest(testing.TestCase):
    def test_standard_behaviour(self):
        layer = layers.GroupInt(use_attention=True, attention_units=[3, 1])
        # 2 * (kernel, norm, bias) of the attention
        self.run_layer_test(
            layer, input_shape=_PAIR, output_shape=(4, 30), num_weights=6
        )

    def test_standard_behaviour_of_dot(self):
        layer = layers.GroupInt("dot", out_type=None)
        self.run_layer_test(
            layer,
            input_shape=(((4, 2, 5), (4, 1, 5)),),
            output_shape=[(4, 1), (4, 1)],
            num_weights=0,
        )

    def test_config(self):
        attention = {
            "use_attention": True,
            "attention_units": (3, 1),
            "activation": "sigmoid2",
            "initializer": "he_normal",
            "regularizer": "l2",
            "out_type": "stack",
            "keep_list": True,
            "attention_softmax": True,
            "attention_pool": True,
        }
        self.run_config_test(layers.GroupInt, attention, {"interaction_type": "dot"})

    @testing.golden_cases(__file__, "group_int")
    def test_golden(self, case):
        self.run_golden_case(case, layers.GroupInt)

    def test_ffm_is_another_name(self):
        self.assertIs(layers.FFM, layers.GroupInt)

    @parameterized.product(softmax=[False, True], pool=[False, True])
    def test_attention_matches_definition(self, softmax, pool):
        left, right = self._sides(2, 3)
        layer = layers.GroupInt(
            use_attention=True,
            attention_units=[4, 1],
            activation="tanh",
            out_type="stack",
            attention_softmax=softmax,
            attention_pool=pool,
        )
        y = layer((left, right))
        k0, n0, b0, k1, n1, b1 = layer.get_weights()
        pairs = np.stack([one * two for one in left for two in right], 1)
        hidden = np.tanh(pairs @ (k0 / np.sqrt((k0**2).sum(0)) * n0) + b0)
        weights = hidden @ (k1 / np.sqrt((k1**2).sum(0)) * n1) + b1  # [5, 6, 1]
        if softmax:
            weights = np.exp(weights) / np.exp(weights).sum(1, keepdims=True)
        expected = pairs * weights
        if pool:
            expected = expected.sum(1, keepdims=True)
        self.assertAllClose(y, expected, rtol=1e-5, atol=1e-5)

    @parameterized.parameters("multiply", "dot")
    def test_stacked_sides_equal_lists(self, interaction_type):
        left, right = self._sides(2, 3)
        layer = layers.GroupInt(interaction_type)
        lists = layer((left, right))
        products = [one * two for one in left for two in right]
        if interaction_type == "dot":
            products = [product.sum(-1, keepdims=True) for product in products]
        self.assertAllClose(lists, np.concatenate(products, 1))
        stacked = layers.GroupInt(interaction_type)
        self.assertAllEqual(stacked([np.stack(left, 1), right]), lists)

    def test_crosses_a_list_with_itself(self):
        one, two = [np.array([[2.0]]), np.array([[3.0]])]
        self.assertAllClose(
            layers.GroupInt()([[one, two], [one, two]]), [[4.0, 6.0, 6.0, 9.0]]
        )

    @parameterized.parameters(
        ("multiply", "concat", False, (5, 18)),
        ("multiply", "stack", True, [(5, 6, 3)]),
        ("multiply", None, True, [(5, 3)] * 6),
        ("dot", "concat", True, [(5, 6)]),
        ("dot", "stack", False, (5, 6)),
        ("dot", None, False, [(5, 1)] * 6),
    )
    def test_output_types(self, interaction_type, out_type, keep_list, shape):
        layer = layers.GroupInt(
            interaction_type, out_type=out_type, keep_list=keep_list
        )
        self.assertEqual(_shapes(layer(self._sides(2, 3))), shape)

    @parameterized.parameters(
        ("concat", (5, 3)), ("stack", (5, 1, 3)), (None, [(5, 3)])
    )
    def test_output_types_of_pooled_attention(self, out_type, shape):
        layer = layers.GroupInt(
            use_attention=True,
            attention_units=[1],
            attention_pool=True,
            out_type=out_type,
        )
        self.assertEqual(_shapes(layer(self._sides(2, 3))), shape)

    def test_penalizes_the_attention(self):
        layer = layers.GroupInt(
            use_attention=True, attention_units=[1], regularizer="l2"
        )
        layer(self._sides(1, 1))
        kernel = layer.attention_mlp.get_layer(0).kernel.numpy()
        self.assertAllClose(layer.losses, [0.01 * np.sum(kernel**2)])

    def _sides(self, left, right):
        def side(count):
            draws = self.rng.normal(size=(count, 5, 3)).astype("float32")
            return list(draws)

        return side(left), side(right)

    def test_rejects_an_unknown_interaction(self):
        with self.assertRaisesRegex(
            ValueError, r"`interaction_type` must be .*'add'\."
        ):
            layers.GroupInt("add")

    def test_rejects_attention_with_dot(self):
        with self.assertRaisesRegex(
            ValueError, r"needs .*multiply.*Received: .*'dot'\."
        ):
            layers.GroupInt("dot", use_attention=True, attention_units=[1])

    @parameterized.parameters((None,), ([],), ([4, 2],))
    def test_rejects_attention_units_that_do_not_end_in_one(self, units):
        with self.assertRaisesRegex(ValueError, "`attention_units` must .* end in 1"):
            layers.GroupInt(use_attention=True, attention_units=units)

    @parameterized.parameters("attention_softmax", "attention_pool")
    def test_rejects_attention_flags_without_attention(self, flag):
        with self.assertRaisesRegex(ValueError, f"`{flag}` needs `use_attention=True`"):
            layers.GroupInt(**{flag: True})

    def test_rejects_an_unknown_output_type(self):
        with self.assertRaisesRegex(ValueError, r"`out_type` must be .*='sum'\."):
            layers.GroupInt(out_type="sum")

    def test_rejects_what_is_no_pair(self):
        one = np.ones([2, 3])
        for inputs in (one, [[one], [one], [one]]):
            with self.assertRaisesRegex(ValueError, r"a pair `\(left, right\)`"):
                layers.GroupInt()(inputs)

    def test_rejects_other_ranks(self):
        one = np.ones([2, 3])
        with self.assertRaisesRegex(
            ValueError, r"`right` must be a list of \[batch, dim"
        ):
            layers.GroupInt()([[one], one])
        with self.assertRaisesRegex(
            ValueError, r"`left` must be a list of \[batch, dim"
        ):
            layers.GroupInt()([[one[None]], [one]])

    def test_rejects_different_widths(self):
        with self.assertRaisesRegex(
            ValueError, r"same width\. Received: widths=\[3, 4\]"
        ):
            layers.GroupInt()([[np.ones([2, 3])], [np.ones([2, 4])]])

    def test_rejects_an_unknown_width(self):
        with self.assertRaisesRegex(ValueError, "`right` must have a known size"):
            layers.GroupInt().build(([[None, 3]], [[None, None]]))

    def test_rejects_integer_input(self):
        with self.assertRaisesRegex(TypeError, r"floating point.*dtype=int32\."):
            layers.GroupInt()([[np.ones([2, 3])], [np.ones([2, 3], "int32")]])


def _shapes(outputs):
    if isinstance(outputs, list):
        return [tuple(tensor.shape) for tensor in outputs]
    return tuple(outputs.shape)
