import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import testing
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding.keras.rows import KeyedRows
from monolith_tf.embedding.keras.training import RowTraining
from monolith_tf.embedding.spec import SliceSpec

_KEYS = np.array([1, 2, -3])
_FIRST = tf.constant([1, 2], tf.int64)
_SECOND = tf.constant([-3, 1], tf.int64)


class RowTrainingTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        self.is_half = False
        self._start(optimizer_spec.SgdSpec(learning_rate=1.0))

    def _start(self, optimizer):
        spec = SliceSpec(name="vec", dim=2, optimizer=optimizer)
        self.rows = KeyedRows("t", spec, seed=1, capacity=100)
        self.rows.assign(_KEYS, np.zeros([3, 2], np.float32))
        self.anchor = tf.Variable(0.0)
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.training = RowTraining(
            "t",
            self.rows,
            anchor=self.anchor,
            step=self.step,
            is_half=lambda: self.is_half,
        )

    def _values(self):
        return self.rows.read(tf.constant(_KEYS)).numpy()[:, 0]

    def _read(self, keys):
        return tf.reduce_sum(self.training.read(keys)[:, 0])

    def _both(self):
        return self._read(_FIRST) + 2.0 * self._read(_SECOND)

    def _gradient(self, loss, scale=1.0):
        with tf.GradientTape() as tape:
            value = loss() * scale
        return tape.gradient(value, self.anchor)

    @parameterized.parameters("eager", "graph", "inner", "inner_graph")
    def test_a_step_applies_the_sum_of_all_calls_once(self, mode):
        self._start(optimizer_spec.AdagradSpec(learning_rate=1.0))
        loss = self._both
        if "inner" in mode:
            loss = tf.function(loss, autograph=False)
        step = lambda: self._gradient(loss)  # noqa: E731
        if "graph" in mode:
            step = tf.function(step, autograph=False)
        expected, state = np.zeros(3), np.full(3, 0.1)
        for _ in range(3):
            self.assertEqual(step(), 0.0)
            # Key 1 is in both calls: 1 + 2. Adagrad of the sum is not that of each.
            gradient = np.array([3.0, 1.0, 2.0])
            state += gradient**2
            expected -= gradient / np.sqrt(state)
        self.assertAllClose(self._values(), expected)
        self.assertEqual(self.step, 3)

    def test_a_function_traced_without_a_tape_is_one_step_too(self):
        self._start(optimizer_spec.AdagradSpec(learning_rate=1.0))
        loss = tf.function(self._both, autograph=False)
        loss()
        self._gradient(loss)
        gradient = np.array([3.0, 1.0, 2.0])  # As above.
        self.assertAllClose(self._values(), -gradient / np.sqrt(0.1 + gradient**2))
        self.assertEqual(self.step, 1)

    def test_two_steps_in_one_function_are_two_steps(self):
        @tf.function(autograph=False)
        def steps():
            self._gradient(lambda: self._read(_FIRST))
            self._gradient(self._both)

        steps()
        self.assertAllEqual(self._values(), [-4.0, -2.0, -2.0])
        self.assertEqual(self.step, 2)

    def test_a_loop_of_steps_inside_a_function(self):
        @tf.function
        def steps():
            for _ in tf.range(3):
                with tf.GradientTape() as tape:
                    loss = self._both()
                tape.gradient(loss, self.anchor)

        steps()
        self.assertAllEqual(self._values(), [-9.0, -3.0, -6.0])

    @parameterized.parameters(False, True)
    def test_refuses_a_second_application(self, in_graph):
        def twice():
            with tf.GradientTape(persistent=True) as tape:
                loss = self._both()
            tape.gradient(loss, self.anchor)
            tape.gradient(loss, self.anchor)

        function = tf.function(twice, autograph=False) if in_graph else twice
        with self.assertRaisesRegex(
            tf.errors.InvalidArgumentError,
            "`t` has applied the gradient of this step already.*one call of",
        ):
            function()
        if not in_graph:  # Where one part of a function fails, others may not run.
            self.assertAllEqual(self._values(), [-3.0, -1.0, -2.0])

    def test_refuses_it_after_other_steps_too(self):
        with tf.GradientTape(persistent=True) as tape:
            loss = self._both()
        tape.gradient(loss, self.anchor)
        for _ in range(2):
            self._gradient(lambda: self._read(_FIRST))
        with self.assertRaisesRegex(tf.errors.InvalidArgumentError, "already"):
            tape.gradient(loss, self.anchor)

    def test_a_call_that_no_gradient_is_taken_of_changes_nothing(self):
        for _ in range(3):
            self._both()
        self.assertAllEqual(self._values(), np.zeros(3))
        self._gradient(self._both)
        self.assertAllEqual(self._values(), [-3.0, -1.0, -2.0])

    def test_a_function_may_read_before_it_takes_a_step(self):
        @tf.function(autograph=False)
        def step():
            before = self._both()
            with tf.control_dependencies([before]):
                self._gradient(self._both)
            return before

        self.assertEqual([step(), step()], [0.0, -14.0])
        self.assertAllEqual(self._values(), [-6.0, -2.0, -4.0])

    @parameterized.parameters(False, True)
    def test_scales_back_what_the_probe_tells(self, in_graph):
        def loss():
            return self._both() + self.training.scale_probe()

        def step():
            return self._gradient(loss, 1024.0)

        self.assertEqual(
            (tf.function(step, autograph=False) if in_graph else step)(), 0
        )
        self.assertAllEqual(self._values(), [-3.0, -1.0, -2.0])

    @parameterized.parameters((0.5, [-1.5, -0.5, -1.0]), (1.0, [-3.0, -1.0, -2.0]))
    def test_a_loss_that_is_weighted_down_is_not_scaled_back(self, weight, expected):
        self._gradient(lambda: self._both() + self.training.scale_probe(), weight)
        self.assertAllEqual(self._values(), expected)

    @parameterized.parameters(1.25, 2.0)
    def test_scales_back_what_is_little_above_one(self, scale):
        self._gradient(lambda: self._both() + self.training.scale_probe(), scale)
        self.assertAllClose(self._values(), [-3.0, -1.0, -2.0])

    def test_a_scale_of_one_leaves_out_rows_and_not_the_step(self):
        def loss():
            read = self._read(_FIRST) * np.inf + self._read(_SECOND)
            return read + self.training.scale_probe()

        # Without a loss scale no optimizer skips a step; key -3 has a gradient of 1.
        self.assertEqual(self._gradient(loss, 1.0), 0.0)
        self.assertAllEqual(self._values(), [0.0, 0.0, -1.0])
        self.assertEqual(self.step, 1)

    def test_leaves_out_a_scaled_step_that_is_not_finite(self):
        def loss():
            return self._both() * np.inf + self.training.scale_probe()

        self.assertTrue(np.isnan(self._gradient(loss, 1024.0)))
        self.assertAllEqual(self._values(), np.zeros(3))
        self.assertEqual(self.step, 0)

    def test_must_be_told_the_scale_in_half_precision(self):
        self.is_half = True
        with self.assertRaisesRegex(ValueError, r"`sum\(model.losses\)` to the loss"):
            self._gradient(self._both)
        self._gradient(lambda: self._both() + self.training.scale_probe())
        self.assertAllEqual(self._values(), [-3.0, -1.0, -2.0])

    def test_there_is_no_probe_without_a_call_on_the_tape(self):
        self.assertIsNone(self.training.scale_probe())
        self._both()
        self.assertIsNone(self.training.scale_probe())

    def test_says_that_it_cannot_learn_inside_a_branch(self):
        @tf.function(autograph=False)
        def step():
            return self._gradient(
                lambda: tf.cond(self.anchor > -1.0, self._both, lambda: 0.0)
            )

        with self.assertRaisesRegex(NotImplementedError, "inside `tf.cond`"):
            step()
