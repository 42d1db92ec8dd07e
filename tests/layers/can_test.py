import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing


def _reference(user, item, layer_num, activation=np.tanh):
    """Applies, one by one, each example's layers to each of its user vectors."""
    dim = user.shape[-1]
    outputs = np.zeros_like(user)
    for b in range(len(user)):
        for index in np.ndindex(user.shape[1:-1]):
            hidden, rest = user[(b, *index)], item[b]
            for _ in range(layer_num):
                kernel, bias = rest[: dim * dim], rest[dim * dim : dim * dim + dim]
                hidden = activation(hidden @ kernel.reshape(dim, dim) + bias)
                rest = rest[dim * dim + dim :]
            outputs[(b, *index)] = hidden
    return outputs


class CANTest(testing.TestCase):
    def test_standard_behaviour(self):
        self.run_layer_test(
            layers.CAN(is_seq=True),
            input_shape=[(4, 2, 5, 3), (4, 24)],
            call_kwargs={"mask": self.rng.integers(0, 2, [4, 5]).astype("bool")},
            output_shape=(4, 2, 3),
            num_weights=0,
        )

    def test_standard_behaviour_of_one_vector(self):
        self.run_layer_test(
            layers.CAN(1, activation="prelu", is_stacked=False),
            input_shape=[(4, 3), (4, 12)],
            output_shape=(4, 3),
            num_weights=1,
        )

    def test_config(self):
        self.run_config_test(
            layers.CAN,
            {
                "layer_num": 3,
                "activation": "sigmoid2",
                "is_seq": True,
                "is_stacked": False,
            },
        )

    @testing.golden_cases(__file__, "can")
    def test_golden(self, case):
        self.run_golden_case(case, layers.CAN)

    @parameterized.product(is_seq=[False, True], is_stacked=[False, True])
    def test_matches_definition(self, is_seq, is_stacked):
        user, item = self._inputs([4] * is_stacked + [5] * is_seq)
        layer = layers.CAN(2, "tanh", is_seq=is_seq, is_stacked=is_stacked)
        expected = _reference(user, item, 2)
        if is_seq:
            expected = expected.sum(-2)
        self.assertAllClose(layer((user, item)), expected, rtol=1e-5, atol=1e-5)

    def test_without_activation_is_linear(self):
        user, item = self._inputs([4])
        expected = _reference(user, item, 2, activation=lambda x: x)
        y = layers.CAN(activation=None)([user, item])
        self.assertAllClose(y, expected, rtol=1e-5, atol=1e-5)

    @parameterized.parameters("bool", "float32")
    def test_masked_steps_are_not_summed(self, dtype):
        user, item = self._inputs([4, 5])
        layer = layers.CAN(2, "tanh", is_seq=True)
        by_step = self.rng.integers(0, 2, [2, 5])
        by_feature = self.rng.integers(0, 2, [2, 4, 5])
        steps = _reference(user, item, 2)
        for mask, weights in (
            (by_step, by_step[:, None, :, None]),
            (by_feature, by_feature[..., None]),
        ):
            self.assertAllClose(
                layer((user, item), mask=tf.constant(mask.astype(dtype))),
                (steps * weights).sum(-2),
                rtol=1e-5,
                atol=1e-5,
            )

    def test_padding_a_masked_sequence_changes_nothing(self):
        user, item = self._inputs([5])
        layer = layers.CAN(is_seq=True, is_stacked=False)
        mask = np.ones([2, 5], "bool")
        padded = np.pad(user, [(0, 0), (0, 3), (0, 0)], constant_values=np.nan)
        self.assertAllClose(
            layer((padded, item), mask=np.pad(mask, [(0, 0), (0, 3)])),
            layer((user, item)),
        )

    def test_ragged_sequence_equals_a_masked_one(self):
        user, item = self._inputs([5])
        layer = layers.CAN(is_seq=True, is_stacked=False)
        ragged = tf.RaggedTensor.from_tensor(user, lengths=[4, 2])
        mask = tf.sequence_mask([4, 2], 5)
        self.assertAllClose(layer((ragged, item)), layer((user, item), mask=mask))

    def test_takes_and_uses_up_the_mask_of_an_embedding(self):
        ids = tf_keras.Input([5], dtype="int64")
        item = tf_keras.Input([12])
        embedding = tf_keras.layers.Embedding(9, 3, mask_zero=True)
        can = layers.CAN(1, is_seq=True, is_stacked=False)
        outputs = can([embedding(ids), item])
        model = tf_keras.Model([ids, item], outputs)
        self.assertIsNone(getattr(outputs, "_keras_mask", None))
        values = self._inputs([])[1][:, :12]
        short, long = np.array([[3, 1], [2, 2]]), np.array([[3, 1, 0, 0, 0]] * 2)
        long[1, :2] = 2
        expected = can([embedding(short), values])
        self.assertAllClose(model([long, values]), expected)

    def test_hands_on_the_mask_of_stacked_features(self):
        mask = tf.constant([[True, False]])
        layer = layers.CAN()
        self.assertIs(layer.compute_mask(None, [mask, None]), mask)
        self.assertIs(layer.compute_mask(None, mask), mask)
        self.assertIsNone(layers.CAN(is_seq=True).compute_mask(None, [mask, None]))

    def test_no_steps_sum_to_zero(self):
        layer = layers.CAN(is_seq=True, is_stacked=False)
        y = layer((np.ones([2, 0, 3]), np.ones([2, 24])))
        self.assertAllEqual(y, np.zeros([2, 3]))

    def test_works_with_width_one(self):
        # relu(2 * 3 + 1) = 7, relu(7 * -1 + 9) = 2
        y = layers.CAN(is_stacked=False)(
            (np.array([[3.0]]), np.array([[2.0, 1.0, -1.0, 9.0]]))
        )
        self.assertAllClose(y, [[2.0]])

    def _inputs(self, middle):
        """Returns users of width 3 and items for two layers, of batch 2."""
        user = self.rng.normal(size=[2, *middle, 3]).astype("float32")
        return user, self.rng.normal(size=[2, 24]).astype("float32")

    def test_rejects_no_layer(self):
        with self.assertRaisesRegex(ValueError, r"`layer_num` must be .*layer_num=0\."):
            layers.CAN(0)

    def test_rejects_what_is_no_pair(self):
        with self.assertRaisesRegex(ValueError, r"a pair `\(user, item\)`"):
            layers.CAN()(np.ones([2, 3]))

    @parameterized.product(is_seq=[False, True], is_stacked=[False, True])
    def test_rejects_another_rank(self, is_seq, is_stacked):
        layer = layers.CAN(is_seq=is_seq, is_stacked=is_stacked)
        rank = 2 + is_seq + is_stacked
        user = np.ones([2] * rank + [3])
        with self.assertRaisesRegex(ValueError, f"must have rank {rank} with is_seq="):
            layer((user, np.ones([2, 24])))

    @parameterized.parameters(((2, 23),), ((2, 24, 1),))
    def test_rejects_another_item_width(self, shape):
        with self.assertRaisesRegex(ValueError, r"`item` must be \[batch, 24\]"):
            layers.CAN()((np.ones([2, 5, 3]), np.ones(shape)))

    def test_rejects_an_unknown_width(self):
        with self.assertRaisesRegex(ValueError, "`user` must have a known size"):
            layers.CAN().build(([None, 5, None], [None, 24]))

    def test_rejects_a_ragged_input_that_is_no_sequence(self):
        ragged = tf.RaggedTensor.from_tensor(np.ones([2, 5, 3]), lengths=[4, 2])
        with self.assertRaisesRegex(ValueError, r"ragged only with .*is_seq=False"):
            layers.CAN()((ragged, np.ones([2, 24])))

    def test_rejects_a_mask_beside_a_ragged_sequence(self):
        ragged = tf.RaggedTensor.from_tensor(np.ones([2, 5, 3]), lengths=[4, 2])
        layer = layers.CAN(is_seq=True, is_stacked=False)
        with self.assertRaisesRegex(ValueError, "`mask` must be None when `user`"):
            layer((ragged, np.ones([2, 24])), mask=np.ones([2, 5]))

    @parameterized.parameters("user", "item")
    def test_rejects_integer_input(self, name):
        inputs = {"user": np.ones([2, 5, 3]), "item": np.ones([2, 24])}
        inputs[name] = inputs[name].astype("int32")
        with self.assertRaisesRegex(TypeError, rf"`{name}` must be floating.*int32\."):
            layers.CAN()(tuple(inputs.values()))
