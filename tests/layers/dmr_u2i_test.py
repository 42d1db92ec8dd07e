import functools

import numpy as np
import tensorflow as tf
import tf_keras

from monolith_tf import layers
from monolith_tf import testing


class DMRU2ITest(testing.TestCase):
    def _inputs(self, batch=4, time=3, item_dim=2, dim=3):
        items = self.rng.normal(size=(batch, item_dim)).astype("float32")
        return items, self.rng.normal(size=(batch, time, dim)).astype("float32")

    def test_standard_behaviour(self):
        mask = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 0]], bool)
        # Four of attention; kernel, bias and slope of the map.
        self.run_layer_test(
            layers.DMR_U2I(2),
            inputs=list(self._inputs()),
            call_kwargs={"mask": mask},
            output_shape=(4, 2),
            num_weights=7,
        )

    def test_config(self):
        self.run_config_test(
            layers.DMR_U2I,
            {
                "cmp_dim": 2,
                "activation": "relu",
                "initializer": "he_normal",
                "regularizer": "l2",
                "score_activation": "sigmoid",
                "max_len": 7,
            },
        )

    @testing.golden_cases(__file__, "dmr_u2i")
    def test_golden(self, case):
        make = layers.DMR_U2I
        if case.name == "shorter_sequence":
            make = functools.partial(make, max_len=2)
        self.run_golden_case(case, make)

    def test_matches_definition(self):
        items, user_seq = self._inputs()
        mask = np.array([[1, 1, 1], [0, 1, 1], [1, 0, 0], [1, 0, 1]], bool)
        layer = layers.DMR_U2I(5, activation="sigmoid", max_len=4)
        layer([items, user_seq])
        layer.z_weight.assign(self.rng.normal(size=(5, 1)))
        layer.bias.assign(self.rng.normal(size=5))
        layer.dense.bias.assign([1.0, -0.5])
        positions, of_items, z = [
            w.numpy() for w in (layer.pos_emb, layer.emb_weight, layer.z_weight)
        ]
        kernel, bias = layer.dense.kernel.numpy(), layer.dense.bias.numpy()
        expected = []
        for b in range(4):
            f = np.tanh(positions[:3] + user_seq[b] @ of_items + layer.bias.numpy())
            alpha = np.exp(f @ z)[:, 0] * mask[b]
            u = (alpha / alpha.sum()) @ user_seq[b]
            expected.append(items[b] / (1 + np.exp(-(u @ kernel + bias))))
        self.assertAllClose(layer([items, user_seq], mask=mask), expected)

    def test_no_valid_step_leaves_the_bias(self):
        items, user_seq = self._inputs(time=2)
        layer = layers.DMR_U2I(2, activation=None)
        layer([items, user_seq])
        layer.dense.bias.assign([2.0, -1.0])
        y = layer([items, user_seq], mask=np.zeros([4, 2], bool))
        self.assertAllClose(y, items * [2.0, -1.0])
        self.assertAllClose(layer([items, user_seq[:, :0]]), items * [2.0, -1.0])

    def test_a_masked_step_changes_nothing(self):
        items, user_seq = self._inputs(time=5)
        mask = np.array([[1.0, 1.0, 1.0, 0.0, 0.0]] * 4)
        layer = layers.DMR_U2I(2, max_len=5)
        y = layer([items, user_seq], mask=mask)
        self.assertAllClose(y, layer([items, user_seq[:, :3]]))

    def test_ragged_sequence(self):
        items, user_seq = self._inputs()
        lengths = np.array([3, 0, 1, 2])
        ragged = tf.RaggedTensor.from_tensor(user_seq, lengths=lengths)
        layer = layers.DMR_U2I(2, max_len=3)
        expected = layer([items, user_seq], mask=np.arange(3) < lengths[:, None])
        self.assertAllClose(layer([items, ragged]), expected)

    def test_keras_mask(self):
        items, user_seq = self._inputs()
        user_seq[:, 2] = 0.0
        layer = layers.DMR_U2I(2, max_len=3)
        y = layer([items, tf_keras.layers.Masking()(user_seq)])
        self.assertAllClose(y, layer([items, user_seq[:, :2]]))
        self.assertIsNone(getattr(y, "_keras_mask", None))

    def test_length_may_change_between_calls(self):
        items, user_seq = self._inputs(time=4)
        layer = layers.DMR_U2I(2, max_len=3)
        call = tf.function(
            lambda q, k: layer([q, k]),
            input_signature=[
                tf.TensorSpec([None, 2]),
                tf.TensorSpec([None, None, 3]),
            ],
        )
        for time in (3, 0, 1):
            y = call(items, user_seq[:, :time])
            self.assertAllClose(y, layer([items, user_seq[:, :time]]))
        with self.assertRaisesRegex(
            tf.errors.InvalidArgumentError, "longer than the 3 rows"
        ):
            call(items, user_seq)

    def test_every_weight_learns_unless_the_score_is_linear(self):
        inputs = list(self._inputs())
        for score_activation, moves in (("tanh", True), (None, False)):
            layer = layers.DMR_U2I(2, score_activation=score_activation)
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(layer(inputs))
            gradient = tape.gradient(loss, layer.bias)
            self.assertEqual(bool(np.abs(gradient).max() > 1e-4), moves)

    def test_regularizer_sees_three_kernels(self):
        layer = layers.DMR_U2I(2, regularizer=tf_keras.regularizers.L2(0.5))
        layer(list(self._inputs()))
        kernels = [layer.pos_emb, layer.emb_weight, layer.dense.kernel]
        expected = [0.5 * np.sum(w.numpy() ** 2) for w in kernels]
        self.assertAllClose(sorted(layer.losses), sorted(expected))

    def test_rejects_widths_below_one(self):
        with self.assertRaisesRegex(ValueError, r"`cmp_dim` must be .*cmp_dim=0\."):
            layers.DMR_U2I(0)
        with self.assertRaisesRegex(ValueError, r"`max_len` must be .*max_len=-1\."):
            layers.DMR_U2I(2, max_len=-1)

    def test_rejects_an_unknown_length(self):
        with self.assertRaisesRegex(ValueError, "a known length .*Set `max_len`"):
            layers.DMR_U2I(2).build([[None, 2], [None, None, 3]])

    def test_rejects_a_longer_sequence(self):
        layer = layers.DMR_U2I(2, max_len=2)
        with self.assertRaisesRegex(ValueError, r"at most 2 steps.*\(4, 3, 3\)"):
            layer(list(self._inputs()))

    def test_rejects_an_unknown_width(self):
        with self.assertRaisesRegex(ValueError, "`items` must have a known size"):
            layers.DMR_U2I(2).build([[None, None], [None, 3, 2]])
        with self.assertRaisesRegex(ValueError, "`user_seq` must have a known size"):
            layers.DMR_U2I(2).build([[None, 2], [None, 3, None]])

    def test_rejects_a_single_tensor(self):
        with self.assertRaisesRegex(ValueError, r"must be `\[items, user_seq\]` of"):
            layers.DMR_U2I(2)(tf.ones([2, 3]))

    def test_rejects_a_mask_of_a_ragged_sequence(self):
        items, user_seq = self._inputs()
        ragged = tf.RaggedTensor.from_tensor(user_seq)
        with self.assertRaisesRegex(ValueError, "`mask` must be None when `user_seq`"):
            layers.DMR_U2I(2, max_len=3)([items, ragged], mask=np.ones([4, 3]))

    def test_rejects_integer_input(self):
        with self.assertRaisesRegex(TypeError, r"`inputs` must be floating point"):
            layers.DMR_U2I(2)([np.ones([2, 4], "int32"), np.ones([2, 3, 4], "int32")])
