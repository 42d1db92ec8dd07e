import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing

_BOTH = parameterized.parameters(
    layers.static_rnn_with_attention, layers.dynamic_rnn_with_attention
)


class RnnWithAttentionTest(testing.TestCase):
    def _arguments(self, batch=2, time=4, dim=3, units=2):
        shapes = [(batch, time, dim), (batch, time), (batch, units)]
        return [self.rng.normal(size=s).astype("float32") for s in shapes]

    @_BOTH
    def test_is_the_cell_step_by_step(self, rnn):
        inputs, scores, state = self._arguments()
        cell = layers.AGRUCell(2, "AUGRU")
        outputs, last = rnn(cell, tf.constant(inputs), tf.constant(scores), state)
        for t in range(4):
            state = cell([inputs[:, t], state, scores[:, t : t + 1]])[1]
            self.assertAllClose(outputs[:, t], state)
        self.assertAllClose(last, state)

    @_BOTH
    def test_no_steps_return_the_start(self, rnn):
        inputs, scores, state = self._arguments(time=0)
        arguments = [tf.constant(a) for a in (inputs, scores, state)]
        outputs, last = rnn(layers.AGRUCell(2), *arguments)
        self.assertEqual(outputs.shape, (2, 0, 2))
        self.assertAllEqual(last, state)

    def test_length_may_be_unknown(self):
        cell = layers.AGRUCell(2)
        arguments = self._arguments()
        shapes = [(None, None, 3), (None, None), (None, 2)]
        call = tf.function(
            lambda *a: layers.dynamic_rnn_with_attention(cell, *a),
            input_signature=[tf.TensorSpec(shape) for shape in shapes],
        )
        expected = layers.static_rnn_with_attention(
            cell, *[tf.constant(a) for a in arguments]
        )
        self.assertAllClose(call(*arguments), expected)

    @_BOTH
    def test_state_stays_precise_under_mixed_precision(self, rnn):
        inputs, scores, state = [tf.constant(a) for a in self._arguments()]
        cell = layers.AGRUCell(2, dtype="mixed_bfloat16")
        outputs, last = rnn(cell, inputs, scores, state)
        self.assertEqual((outputs.dtype, last.dtype), (tf.float32, tf.float32))
        self.assertTrue(np.all(np.isfinite(outputs)))

    def test_unrolling_needs_a_known_length(self):
        call = tf.function(
            lambda x: layers.static_rnn_with_attention(
                layers.AGRUCell(2), x, x[:, :, 0], x[:, 0]
            ),
            input_signature=[tf.TensorSpec([None, None, 2])],
            autograph=False,
        )
        with self.assertRaisesRegex(ValueError, "Use `dynamic_rnn_with_attention`"):
            call.get_concrete_function()

    @_BOTH
    def test_names_and_defaults_are_the_originals(self, rnn):
        inputs, scores, _ = self._arguments()
        cell = layers.AGRUCell(2)
        outputs, _ = rnn(cell, inputs=tf.constant(inputs), att_scores=scores)
        start = tf.zeros([2, 2])
        expected, _ = rnn(cell, inputs, att_scores=scores, init_state=start)
        self.assertAllEqual(outputs, expected)
